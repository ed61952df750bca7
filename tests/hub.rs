//! Downloads, from a hub of our own on the loopback interface that answers as Hugging Face's does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pard::Error;
use pard::checkpoint::hugging_face::TARGET_PROJECTION;
use pard::checkpoint::options::{DownloadProgress, SourceOptions};
use pard::checkpoint::resolve::{find, pull, resolve};
use pard::checkpoint::{DraftFiles, ModelFiles};
use serde_json::json;

use crate::support::tiny_model::Recipe;

const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// Fault of the hub for one file.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Sends so many bytes, then closes the connection.
    Breaks(usize),
    /// The same, without having said how long the file is.
    BreaksSilently(usize),
}

/// A hub with one repository, `owner/tiny`.
#[derive(Default)]
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    faults: BTreeMap<String, Fault>,
    /// Answers to questions about the repository itself.
    status: Option<u16>,
    /// Each request: the file, the range asked for, the key shown.
    requests: Vec<(String, Option<String>, Option<String>)>,
}

type Shared = Arc<Mutex<Hub>>;

/// Starts the hub; it ends with the test process.
fn serve(hub: Hub) -> (String, Shared) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let shared = Arc::new(Mutex::new(hub));
    let hub = Arc::clone(&shared);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is no fault of the hub's.
            let _ = answer(stream, &hub);
        }
    });
    (endpoint, shared)
}

fn answer(mut stream: TcpStream, hub: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_lowercase(), value.to_owned());
        }
    }
    let mut hub = hub.lock().expect("the hub");
    let key = headers.get("authorization").cloned();
    let refuse = |stream: &mut TcpStream, status: u16| {
        write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    if let Some(revision) = path.strip_prefix("/api/models/owner/tiny/revision/") {
        let revision = revision.split('?').next().unwrap_or_default();
        let asked = if revision == "main" { "info".to_owned() } else { format!("info of {revision}") };
        hub.requests.push((asked, None, key));
        if let Some(status) = hub.status {
            return refuse(&mut stream, status);
        }
        let sizes = hub.files.iter().map(|(name, bytes)| json!({ "rfilename": name, "size": bytes.len() }));
        let siblings: Vec<_> = sizes.collect();
        let body = json!({ "sha": REVISION, "siblings": siblings }).to_string();
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    }
    let Some(file) = path.strip_prefix(&format!("/owner/tiny/resolve/{REVISION}/")).map(str::to_owned) else {
        return refuse(&mut stream, 404);
    };
    let range = headers.get("range").cloned();
    hub.requests.push((file.clone(), range.clone(), key));
    let fault = hub.faults.get(&file).copied();
    let Some(bytes) = hub.files.get(&file) else { return refuse(&mut stream, 404) };
    if let Some(Fault::Status(status)) = fault {
        return refuse(&mut stream, status);
    }
    let range = range.unwrap_or_default();
    let (start, end) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse::<usize>().map_or(bytes.len(), |last| bytes.len().min(last + 1));
    if start >= bytes.len() {
        return refuse(&mut stream, 416);
    }
    let probe = end - start == 1 && bytes.len() > 1;
    let sent = match fault {
        Some(Fault::Breaks(sent) | Fault::BreaksSilently(sent)) if !probe => sent.min(end - start),
        _ => end - start,
    };
    write!(
        stream,
        "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"etag-{file}\"\r\n\
         X-Repo-Commit: {REVISION}\r\nConnection: close\r\n",
        end - 1,
        bytes.len()
    )?;
    if !matches!(fault, Some(Fault::BreaksSilently(_))) || probe {
        write!(stream, "Content-Length: {}\r\n", end - start)?;
    }
    write!(stream, "\r\n")?;
    stream.write_all(&bytes[start..start + sent])
}

/// A hub that holds a model of this recipe.
fn with_model(recipe: &Recipe) -> Hub {
    let folder = tempfile::tempdir().expect("a folder");
    recipe.write(folder.path());
    let mut hub = Hub::default();
    for entry in std::fs::read_dir(folder.path()).expect("reading").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        hub.files.insert(name, std::fs::read(entry.path()).expect("reading"));
    }
    // Things that are not to be taken.
    hub.files.insert("README.md".to_owned(), b"read me".to_vec());
    hub.files.insert("pytorch_model.bin".to_owned(), vec![0; 64]);
    hub
}

/// PARD-2's drafts come without a tokenizer, and with the projection of their target's states in a second file.
#[test]
fn a_draft_comes_with_its_projection_and_without_a_tokenizer() {
    let home = tempfile::tempdir().expect("a folder");
    let mut hub = Hub::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pard2/llama_td/draft");
    for entry in std::fs::read_dir(&folder).expect("reading").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        hub.files.insert(name, std::fs::read(entry.path()).expect("reading"));
    }
    let (endpoint, _) = serve(hub);
    let found = resolve("owner/tiny", &options(home.path(), &endpoint)).expect("a download");
    let draft = DraftFiles::open(&found).expect("a draft");
    assert!(draft.text.is_none());
    draft.checkpoint.expect(TARGET_PROJECTION, &[64, 192]).expect("its projection");
    let mut offline = options(home.path(), &endpoint);
    offline.offline = true;
    assert_eq!(resolve("owner/tiny", &offline).expect("it is whole"), found);
}

/// A machine whose caches lie in `home`.
fn options<'a>(home: &Path, endpoint: &str) -> SourceOptions<'a> {
    let mut options = SourceOptions::from_variables(|_| None);
    options.hub_cache = Some(home.join("hub"));
    options.endpoint = endpoint.to_owned();
    options
}

fn refusal(result: pard::Result<PathBuf>) -> String {
    match result {
        Err(Error::Hub { repo, reason }) if repo == "owner/tiny" => reason,
        other => panic!("{other:?}"),
    }
}

fn requested(hub: &Shared) -> Vec<String> {
    hub.lock().expect("the hub").requests.iter().map(|(file, ..)| file.clone()).collect()
}

#[derive(Default)]
struct Log(Mutex<Vec<(String, u64, u64)>>);

impl DownloadProgress for Log {
    fn report(&self, file: &str, done: u64, total: u64) {
        self.0.lock().expect("the log").push((file.to_owned(), done, total));
    }
}

#[test]
fn a_model_is_downloaded_once_and_whole() {
    let home = tempfile::tempdir().expect("a folder");
    let mut model = with_model(&Recipe::qwen3(4));
    model.files.insert("chat_template.jinja".to_owned(), b"hello".to_vec());
    let sizes: BTreeMap<String, u64> =
        model.files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    let (endpoint, hub) = serve(model);
    let log = Log::default();
    let mut options = options(home.path(), &endpoint);
    options.progress = Some(&log);
    options.token = Some("secret".to_owned());
    let folder = resolve("owner/tiny", &options).expect("downloading");
    let files = ModelFiles::open(&folder).expect("opening");
    assert_eq!((files.name(), files.text.template.as_deref()), ("owner/tiny", Some("hello")));

    let mut taken = requested(&hub);
    taken.sort();
    taken.dedup();
    let expected = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "info",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(taken, expected);
    for (file, _, key) in &hub.lock().expect("the hub").requests {
        assert_eq!(key.as_deref(), Some("Bearer secret"), "{file}");
    }
    for file in expected.iter().filter(|file| **file != "info") {
        let log = log.0.lock().expect("the log");
        let last = log.iter().rfind(|(name, ..)| name == file).expect("a report");
        assert_eq!((last.1, last.2), (sizes[*file], sizes[*file]), "{file}");
    }
    // Now it is in the cache, and nobody is asked.
    let before = requested(&hub).len();
    options.offline = true;
    assert_eq!(resolve("owner/tiny", &options).expect("the cache"), folder);
    assert_eq!(requested(&hub).len(), before);
}

/// `resolve` takes what is there; `pull` asks for what is newest.
#[test]
fn pulling_asks_the_hub_again_and_fetches_what_is_missing() {
    let home = tempfile::tempdir().expect("a folder");
    let (endpoint, hub) = serve(with_model(&Recipe::llama(4)));
    let mut options = options(home.path(), &endpoint);
    let folder = pull("owner/tiny", &options).expect("downloading").path;
    ModelFiles::open(&folder).expect("opening");
    let before = requested(&hub).len();
    assert_eq!(pull("owner/tiny", &options).expect("the cache").path, folder);
    assert_eq!(requested(&hub)[before..], ["info"]);
    std::fs::remove_file(folder.join("tokenizer.json")).expect("removing");
    pull("owner/tiny", &options).expect("downloading");
    assert!(requested(&hub)[before..].iter().any(|file| file == "tokenizer.json"));
    options.offline = true;
    assert!(matches!(pull("owner/tiny", &options), Err(Error::NoModel { .. })));
    for name in ["tiny", "./owner/tiny", "owner/tiny.gguf"] {
        assert!(matches!(pull(name, &options), Err(Error::NoModel { .. })), "{name}");
    }
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_stopped() {
    for fault in [Fault::Breaks(1000), Fault::BreaksSilently(1000)] {
        let home = tempfile::tempdir().expect("a folder");
        let mut model = with_model(&Recipe::llama(4));
        model.faults.insert("model.safetensors".to_owned(), fault);
        let (endpoint, hub) = serve(model);
        let options = options(home.path(), &endpoint);
        let message = refusal(resolve("owner/tiny", &options));
        assert!(message.contains("again"), "{message}");
        // Incomplete files are not taken for a model.
        let offline = SourceOptions::from_variables(|_| None).offline(true).hub_cache(options.hub_cache.clone());
        assert!(matches!(resolve("owner/tiny", &offline), Err(Error::NoModel { .. })));

        hub.lock().expect("the hub").faults.clear();
        hub.lock().expect("the hub").requests.clear();
        let folder = resolve("owner/tiny", &options).expect("the second time");
        ModelFiles::open(&folder).expect("opening");
        let hub = hub.lock().expect("the hub");
        let last = hub.requests.last().expect("a request");
        assert_eq!(last.0, "model.safetensors");
        if fault == Fault::Breaks(1000) {
            assert_eq!(last.1.as_deref(), Some("bytes=1000-"));
        }
        assert!(!hub.requests.iter().any(|(file, ..)| file == "tokenizer.json"), "fetched twice");
    }
}

#[test]
fn each_refusal_says_what_to_do() {
    for (status, words) in [
        (401, &["401", "gated", "HF_TOKEN"][..]),
        (403, &["403", "gated", "HF_TOKEN"]),
        (404, &["404", "no such repository"]),
        (429, &["429", "wait"]),
        (500, &["500"]),
    ] {
        let home = tempfile::tempdir().expect("a folder");
        let (endpoint, hub) = serve(with_model(&Recipe::llama(4)));
        hub.lock().expect("the hub").status = Some(status);
        let options = options(home.path(), &endpoint);
        let message = refusal(resolve("owner/tiny", &options));
        assert!(words.iter().all(|word| message.contains(word)), "{status}: {message}");
        // The hub describes gated repositories to everybody and refuses their files.
        hub.lock().expect("the hub").status = None;
        hub.lock().expect("the hub").faults.insert("config.json".to_owned(), Fault::Status(status));
        let message = refusal(resolve("owner/tiny", &options));
        assert!(words.iter().all(|word| message.contains(word)), "{status}: {message}");
    }
}

#[test]
fn without_a_network_the_error_says_which_files_to_place_where() {
    let home = tempfile::tempdir().expect("a folder");
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let message = refusal(resolve("owner/tiny", &options(home.path(), &endpoint)));
    for word in ["cannot reach", "config.json", "tokenizer.json", "*.safetensors", "folder", "owner/tiny"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn a_repository_without_a_model_of_ours_says_what_it_lacks() {
    for (removed, added, word) in [
        ("config.json", "x", "config.json"),
        ("tokenizer.json", "tokenizer.model", "tokenizer.json"),
        ("model.safetensors", "x", "*.safetensors"),
    ] {
        let home = tempfile::tempdir().expect("a folder");
        let mut model = with_model(&Recipe::llama(4));
        model.files.remove(removed);
        model.files.insert(added.to_owned(), vec![0; 16]);
        let (endpoint, _hub) = serve(model);
        let message = refusal(resolve("owner/tiny", &options(home.path(), &endpoint)));
        assert!(message.contains(word), "{removed}: {message}");
    }
}

#[test]
fn a_draft_without_a_tokenizer_is_downloaded_if_it_uses_its_targets() {
    let home = tempfile::tempdir().expect("a folder");
    let mut model = with_model(&Recipe::llama(4));
    model.files.remove("tokenizer.json");
    model.files.insert("config.json".to_owned(), br#"{"shared_embeddings": true}"#.to_vec());
    let (endpoint, hub) = serve(model);
    let folder = resolve("owner/tiny", &options(home.path(), &endpoint)).expect("a draft");
    assert!(folder.join("model.safetensors").is_file());
    assert!(!requested(&hub).iter().any(|file| file == "tokenizer.json"), "it is not there");
}

#[test]
fn an_index_cannot_lead_a_download_out_of_the_cache() {
    let home = tempfile::tempdir().expect("a folder");
    let mut model = with_model(&Recipe::qwen3(4));
    let index = json!({ "weight_map": { "w": "../../../../escaped.safetensors" } }).to_string();
    model.files.insert("model.safetensors.index.json".to_owned(), index.into_bytes());
    let (endpoint, hub) = serve(model);
    let error = resolve("owner/tiny", &options(home.path(), &endpoint)).expect_err("outside");
    assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("outside the folder"), "{error}");
    assert!(!requested(&hub).iter().any(|file| file.contains("..")));
}

/// A hub with GGUF files of these sizes.
fn with_ggufs(files: &[(&str, usize)]) -> Hub {
    let mut hub = Hub::default();
    for (name, bytes) in files {
        hub.files.insert((*name).to_owned(), vec![7; *bytes]);
    }
    hub
}

/// Files as publishers of quantised models have them.
const QUANTISED: [(&str, usize); 7] = [
    ("config.json", 2),
    ("mmproj-tiny-F16.gguf", 10),
    ("tiny-IQ2_XS.gguf", 100),
    ("tiny-Q2_K.gguf", 1000),
    ("tiny-Q4_K_M.gguf", 3000),
    ("tiny-Q8_0.gguf", 5000),
    ("BF16/tiny-BF16.gguf", 9000),
];

fn no_model(result: pard::Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(Error::NoModel { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_several_gguf_files_one_that_fits_is_taken_and_the_choice_is_told() {
    let (endpoint, hub) = serve(with_ggufs(&QUANTISED));
    for (memory, expected) in
        [(None, "tiny-Q4_K_M.gguf"), (Some(4000), "tiny-Q4_K_M.gguf"), (Some(3200), "tiny-Q2_K.gguf")]
    {
        let home = tempfile::tempdir().expect("a folder");
        hub.lock().expect("the hub").requests.clear();
        let memory = || memory;
        let options = options(home.path(), &endpoint).memory(Some(&memory));
        let found = find("owner/tiny", &options).expect("a choice");
        assert!(found.path.ends_with(expected), "{}", found.path.display());
        assert_eq!(std::fs::read(&found.path).expect("the file")[0], 7);
        let notice = found.notice.expect("a notice");
        assert!([expected, "owner/tiny:", "Q8_0", "BF16"].iter().all(|word| notice.contains(word)), "{notice}");
        assert!(requested(&hub).iter().all(|file| file == "info" || file == expected), "nothing else is fetched");
        // From now on it is the one that is here.
        let found = find("owner/tiny", &options.clone().offline(true)).expect("the cache");
        assert!(found.path.ends_with(expected));
        assert!(found.notice.expect("a notice").contains("on this machine"));
    }
    let home = tempfile::tempdir().expect("a folder");
    let too_little = || Some(500);
    let message = no_model(find("owner/tiny", &options(home.path(), &endpoint).memory(Some(&too_little))));
    assert!(message.contains("none") && message.contains("owner/tiny:Q2_K"), "{message}");
}

#[test]
fn a_gguf_file_is_named_in_many_ways() {
    let (endpoint, hub) = serve(with_ggufs(&QUANTISED));
    let home = tempfile::tempdir().expect("a folder");
    let mut options = options(home.path(), &endpoint);
    let own = format!("{endpoint}/owner/tiny/blob/main/BF16/tiny-BF16.gguf");
    for (name, expected) in [
        ("owner/tiny:Q8_0", "tiny-Q8_0.gguf"),
        ("owner/tiny:q2_k", "tiny-Q2_K.gguf"),
        ("owner/tiny:tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf"),
        ("hf.co/owner/tiny:BF16", "BF16/tiny-BF16.gguf"),
        ("https://hf.co/owner/tiny:Q8_0", "tiny-Q8_0.gguf"),
        ("https://huggingface.co/owner/tiny/resolve/main/tiny-Q8_0.gguf?download=true", "tiny-Q8_0.gguf"),
        (&own, "BF16/tiny-BF16.gguf"),
    ] {
        let found = find(name, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found.path.ends_with(expected), "{name}: {}", found.path.display());
        assert_eq!(found.notice, None, "{name} leaves no choice");
    }
    let taken = requested(&hub).iter().filter(|file| *file == "tiny-Q8_0.gguf").count();
    options.offline = true;
    find("owner/tiny:Q8_0", &options).expect("the cache");
    assert_eq!(requested(&hub).iter().filter(|file| *file == "tiny-Q8_0.gguf").count(), taken);
    let message = no_model(find("owner/tiny:Q5_K_M", &options));
    assert!(message.contains("HF_HUB_OFFLINE"), "{message}");
}

#[test]
fn a_quantisation_that_is_not_there_or_not_read_or_in_several_files_is_refused() {
    let mut hub = with_ggufs(&QUANTISED);
    hub.files.insert("other-Q8_0.gguf".to_owned(), vec![0; 16]);
    let (endpoint, hub) = serve(hub);
    let home = tempfile::tempdir().expect("a folder");
    for (asked, words) in [
        ("Q5_K_M", &["Q5_K_M", "tiny-Q8_0.gguf"][..]),
        ("IQ2_XS", &["tiny-IQ2_XS.gguf", "not read"]),
        ("Q8_0", &["several", "other-Q8_0.gguf", "tiny-Q8_0.gguf"]),
    ] {
        let message = no_model(find(&format!("owner/tiny:{asked}"), &options(home.path(), &endpoint)));
        assert!(words.iter().all(|word| message.contains(word)), "{asked}: {message}");
    }
    assert!(requested(&hub).iter().all(|file| file == "info"), "nothing is fetched");

    let (endpoint, _hub) = serve(with_model(&Recipe::llama(4)));
    let message = refusal(resolve("owner/tiny:Q8_0", &options(home.path(), &endpoint)));
    assert!(message.contains("no GGUF file"), "{message}");
}

#[test]
fn all_parts_of_a_split_file_are_fetched_or_the_missing_one_is_named() {
    let parts = [1, 2, 3].map(|part| format!("Q8_0/tiny-Q8_0-0000{part}-of-00003.gguf"));
    let mut hub = Hub::default();
    for part in &parts {
        hub.files.insert(part.clone(), vec![7; 100]);
    }
    let (endpoint, hub) = serve(hub);
    let home = tempfile::tempdir().expect("a folder");
    let mut options = options(home.path(), &endpoint);
    let found = find("owner/tiny:Q8_0", &options).expect("all parts");
    assert!(found.path.ends_with(&parts[0]));
    assert!(parts[1..].iter().all(|part| found.path.parent().expect("Q8_0").with_file_name(part).is_file()));

    std::fs::remove_file(found.path.parent().expect("Q8_0").with_file_name(&parts[1])).expect("removing");
    options.offline = true;
    let message = no_model(find("owner/tiny", &options));
    assert!(message.contains(&parts[1]), "{message}");

    hub.lock().expect("the hub").files.remove(&parts[2]);
    options.offline = false;
    let message = refusal(resolve("owner/tiny:Q8_0", &options));
    assert!(message.contains(&parts[2]), "{message}");
}

#[test]
fn a_revision_is_looked_up_and_kept_under_its_name() {
    let (endpoint, hub) = serve(with_model(&Recipe::llama(4)));
    let home = tempfile::tempdir().expect("a folder");
    let mut options = options(home.path(), &endpoint);
    let folder = resolve("owner/tiny@refs/pr/1", &options).expect("downloading");
    assert_eq!(requested(&hub)[0], "info of refs%2Fpr%2F1");
    ModelFiles::open(&folder).expect("opening");
    options.offline = true;
    for name in ["owner/tiny@refs/pr/1".to_owned(), format!("owner/tiny@{REVISION}")] {
        assert_eq!(resolve(&name, &options).expect("the cache"), folder, "{name}");
    }
    assert!(matches!(resolve("owner/tiny", &options), Err(Error::NoModel { .. })), "main is another");
    options.offline = false;
    hub.lock().expect("the hub").status = Some(404);
    let message = refusal(resolve("owner/tiny@v2", &options));
    assert!(message.contains("v2"), "{message}");
}

#[test]
fn a_lora_adapter_is_called_one() {
    let mut hub = with_ggufs(&[("adapter_model.safetensors", 16)]);
    let config = json!({ "base_model_name_or_path": "owner/base", "peft_type": "LORA" }).to_string();
    hub.files.insert("adapter_config.json".to_owned(), config.into_bytes());
    let (endpoint, hub) = serve(hub);
    let home = tempfile::tempdir().expect("a folder");
    let message = no_model(resolve("owner/tiny", &options(home.path(), &endpoint)));
    assert!(message.contains("LoRA adapter of owner/base"), "{message}");
    assert!(!requested(&hub).iter().any(|file| file.ends_with(".safetensors")));
}
