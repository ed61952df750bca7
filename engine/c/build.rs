//! Keeps the C functions of libraries that are linked in, such as llguidance's, out of what libpard exports.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => println!("cargo::rustc-cdylib-link-arg=-Wl,-unexported_symbol,_llg_*"),
        // There is no such option; names that begin with another library's are in nobody's way.
        Ok("windows") => {}
        _ => println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL"),
    }
}
