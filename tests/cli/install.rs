//! `install.sh` against made-up releases and a server of this machine.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Ended;

fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").expect("a PATH");
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|tool| tool.is_file())
}

fn has_tools(test: &str) -> bool {
    let found = ["curl", "wget"].iter().any(|name| tool(name).is_some())
        && ["sha256sum", "shasum"].iter().any(|name| tool(name).is_some());
    if !found {
        eprintln!("SKIPPED {test}: there is no curl or wget, or nothing that makes SHA-256 sums");
    }
    found
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Serves the files of `folder`, and says where.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let asked = lines.next().unwrap_or_default();
            lines.for_each(drop);
            let path = asked.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
            let (status, body) = match std::fs::read(folder.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    format!("http://{address}")
}

/// The name of this machine's archive of a release, as the script makes it.
fn archive(version: &str) -> String {
    let system = if cfg!(target_os = "macos") { "apple-darwin" } else { "unknown-linux-gnu" };
    format!("pard-{version}-{}-{system}", std::env::consts::ARCH)
}

/// A release whose program is `program`, with `files` beside it.
fn release(releases: &Path, version: &str, program: &str, files: &[&str]) {
    let name = archive(version);
    let folder = releases.join(format!("v{version}"));
    for file in files.iter().chain(&["bin/pard"]) {
        let path = folder.join(&name).join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, program).expect("a file");
    }
    let sums = if tool("sha256sum").is_some() { "sha256sum" } else { "shasum -a 256" };
    let packing = format!(
        "chmod +x {name}/bin/pard && tar -czf {name}.tar.gz {name} && {sums} {name}.tar.gz >{name}.tar.gz.sha256"
    );
    let done = Command::new("sh").args(["-c", &packing]).current_dir(&folder).status().expect("a shell");
    assert!(done.success());
}

/// A program that only says which version it is.
fn script(version: &str) -> String {
    format!("#!/bin/sh\necho pard {version}\n")
}

fn install(home: &Path, base: &str, path: Option<&Path>, arguments: &[&str]) -> Ended {
    let mut command = Command::new("/bin/sh");
    command.arg(Path::new(crate::ROOT).join("install.sh")).args(arguments);
    command.env("HOME", home).env("PARD_BASE_URL", base).env("no_proxy", "127.0.0.1");
    if let Some(path) = path {
        command.env("PATH", path);
    }
    Ended::of(command.output().expect("a shell"))
}

/// All files below a folder, by their paths in it.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => waiting.push(entry.path()),
                false => {
                    let path = entry.path();
                    found.insert(path.strip_prefix(root).expect("a path in it").display().to_string());
                }
            };
        }
    }
    found
}

#[test]
fn a_release_is_installed_replaced_and_removed() {
    if !has_tools("a_release_is_installed_replaced_and_removed") {
        return;
    }
    let root = folder("whole");
    let (home, releases) = (root.join("a home"), root.join("releases"));
    release(&releases, "1.0.0", &script("1.0.0"), &["lib/libpard.so", "share/man/man1/pard.1", "share/doc/pard/old"]);
    release(&releases, "1.1.0-rc.1", &script("1.1.0-rc.1"), &["share/doc/pard/new"]);
    let base = serve(releases);
    let local = home.join(".local");
    std::fs::create_dir_all(local.join("share/doc")).expect("a folder");
    std::fs::write(local.join("share/doc/kept"), "").expect("a file");
    let installed = |files: &[&str]| {
        let always = ["bin/pard", "share/pard/installed", "share/doc/kept"];
        always.iter().chain(files).map(|file| file.to_string()).collect::<BTreeSet<_>>()
    };

    let first = install(&home, &base, None, &["--version", "1.0.0"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    for part in ["installed pard 1.0.0", &format!("export PATH=\"{}/bin:$PATH\"", local.display())] {
        assert!(first.stderr.contains(part), "no {part:?} in {}", first.stderr);
    }
    assert_eq!(files(&local), installed(&["lib/libpard.so", "share/man/man1/pard.1", "share/doc/pard/old"]));

    // Another version leaves nothing of the first.
    let second = install(&home, &base, None, &["--version", "v1.1.0-rc.1"]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(files(&local), installed(&["share/doc/pard/new"]));
    let program = Command::new(local.join("bin/pard")).output().expect("the program");
    assert_eq!(program.stdout, b"pard 1.1.0-rc.1\n");

    let gone = install(&home, &base, None, &["--uninstall"]);
    assert_eq!(gone.code, Some(0), "{}", gone.stderr);
    assert_eq!(files(&local), BTreeSet::from(["share/doc/kept".to_owned()]));
    assert!(!local.join("bin").exists() && !local.join("share/pard").exists());
    let again = install(&home, &base, None, &["--uninstall"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("nothing of pard"), "{}", again.stderr);
}

#[test]
fn what_is_wrong_with_a_release_is_said_and_nothing_is_replaced() {
    if !has_tools("what_is_wrong_with_a_release_is_said_and_nothing_is_replaced") {
        return;
    }
    let root = folder("wrong");
    let (home, releases) = (root.join("home"), root.join("releases"));
    for version in ["1.0.0", "2.0.0"] {
        release(&releases, version, &script(version), &[]);
    }
    release(&releases, "3.0.0", "#!/no/such/loader\n", &[]);
    release(&releases, "4.0.0", &script("4.0.0"), &[]);
    let of = |version: &str, ending: &str| releases.join(format!("v{version}/{}.tar.gz{ending}", archive(version)));
    std::fs::copy(of("1.0.0", ""), of("2.0.0", "")).expect("another archive");
    std::fs::write(of("4.0.0", ".sha256"), "<html>").expect("a page in place of the sum");
    let base = serve(releases);
    assert_eq!(install(&home, &base, None, &["--version", "1.0.0"]).code, Some(0));
    let before = files(&home);
    let nobody = "http://127.0.0.1:9";

    for (base, version, parts) in [
        (base.as_str(), "2.0.0", ["SHA-256", "nothing was installed"]),
        (&base, "3.0.0", ["does not run on this system", "glibc"]),
        (&base, "4.0.0", ["SHA-256", "instead of <html>"]),
        (&base, "5.0.0", ["cannot fetch", "v5.0.0/pard-5.0.0-"]),
        (nobody, "1.0.0", ["cannot fetch", nobody]),
        ("", "1.0.0", ["no place to fetch from", "PARD_BASE_URL"]),
        (&base, "../1.0.0", ["../1.0.0", "no version"]),
        (&base, "", ["--version", "needs a value"]),
    ] {
        let ended = install(&home, base, None, &["--version", version]);
        assert_eq!(ended.code, Some(1), "{version}: {}", ended.stderr);
        for part in parts {
            assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
        }
        assert_eq!(files(&home), before, "{version}");
    }
    let unnamed = install(&home, &base, None, &[]);
    assert!(unnamed.code == Some(1) && unnamed.stderr.contains("--version"), "{}", unnamed.stderr);
    assert_eq!(install(&home, &base, None, &["--force"]).code, Some(2));
    let program = Command::new(home.join(".local/bin/pard")).output().expect("the program");
    assert_eq!(program.stdout, b"pard 1.0.0\n");
}

#[test]
fn tools_that_are_not_there_are_named() {
    let root = folder("tools");
    let bare = root.join("bin");
    std::fs::create_dir_all(&bare).expect("a folder");
    let have = |names: &[&str]| {
        for name in names {
            symlink(tool(name).unwrap_or_else(|| panic!("no {name}")), bare.join(name)).expect("a link");
        }
        let ended = install(&root, "http://127.0.0.1:9", Some(&bare), &["--version", "1.0.0"]);
        assert_eq!(ended.code, Some(1));
        ended.stderr
    };
    assert!(have(&[]).contains("needs uname"));
    let most = ["uname", "mktemp", "mkdir", "mv", "rm", "rmdir", "dirname", "cut", "sed", "tar"];
    assert!(have(&most).contains("needs gzip"));
    assert!(have(&["gzip"]).contains("curl or wget"));
}
