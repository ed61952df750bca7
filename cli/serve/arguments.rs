//! Arguments of `pard serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use crate::args::DecodingArguments;

#[derive(Args, Clone)]
pub struct ServeArguments {
    /// The address to listen on; one that other machines reach needs --api-key-file
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_parser = address)]
    pub host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// A file of keys, one a line, of which every request must bear one
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// A name that requests may call this machine by, beside `localhost` and addresses; may be given several times. Where
    /// keys are asked for, every name is allowed
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// A site whose pages may ask, such as https://example.com, or `*`; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Answers written at once, each with caches of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u16).range(1..=256))]
    pub parallel: u16,
    /// Answers that may wait for their turn; more are refused with 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub queue: usize,
    /// A folder for the caches of conversations: those in memory are kept there when the server ends and taken up again when it
    /// starts, and a request's `pard.cache` names one that is kept after each answer
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
    /// Gigabytes that the files of --cache-dir may take; the oldest are removed
    #[arg(long, value_name = "GB", default_value = "10", value_parser = gigabytes, requires = "cache_dir")]
    pub cache_size: u64,
    /// Seconds that a client may take to send a request's head, and as many for its body
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub read_timeout: Duration,
    /// Seconds that a client may take to read on before it is dropped
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub write_timeout: Duration,
    /// Seconds that answers may take to end after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Defaults for a request: sampling, method and K, the longest answer, stop texts
    #[command(flatten)]
    pub decoding: DecodingArguments,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

fn address(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => text.parse().map_err(|_| "it is no IP address (127.0.0.1, 0.0.0.0, ::1)".to_owned()),
    }
}

/// Bytes of so many gigabytes.
fn gigabytes(text: &str) -> Result<u64, String> {
    let gigabytes = text.parse().ok().filter(|gigabytes| (0.001..=1e6).contains(gigabytes));
    gigabytes
        .map(|gigabytes: f64| (gigabytes * 1e9) as u64)
        .ok_or_else(|| "it is not a number from 0.001 to 1e6".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=86400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "it is not a number from 0.01 to 86400".to_owned())
}
