//! The functions of `pard.h`, called as C calls them: what they refuse, what they promise of threads, and that answers
//! are those of the engine.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::zeroed;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pard::checkpoint::ModelFiles;
use pard::decoding::{Generation, Limits, Sequence, SequenceOptions};
use pard::{LoadOptions, Message, Model, Rendering};

use super::{MODELS, ROOT, device};
use crate::*;

const OK: i32 = 0;
const INVALID: i32 = 1;
const NO_DEVICE: i32 = 2;
const NO_MODEL: i32 = 3;
const BAD_MODEL: i32 = 4;
const BAD_DRAFT: i32 = 5;
const BAD_PROMPT: i32 = 6;
const BUSY: i32 = 9;
const INTERNAL: i32 = 10;

const WRITING: i32 = 0;
const LENGTH: i32 = 2;
const CONTEXT: i32 = 3;
const CANCELLED: i32 = 4;

const QUESTION: &CStr = c"What is the other thing?";

/// The handles that most tests start from.
struct Handles {
    device: *mut PardDevice,
    model: *mut PardModel,
    draft: *mut PardDraft,
}

// SAFETY: the manual says that these may be used by any number of threads.
unsafe impl Send for Handles {}
// SAFETY: as above.
unsafe impl Sync for Handles {}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| {
    let mut handles = Handles { device: null_mut(), model: null_mut(), draft: null_mut() };
    // SAFETY: all pointers are to what lives.
    unsafe {
        done(|error| pard_device_open(null(), &mut handles.device, error));
        let [target, draft] = [&MODELS.target, &MODELS.draft].map(|path| c_path(path));
        done(|error| pard_model_load(handles.device, target.as_ptr(), null(), &mut handles.model, error));
        done(|error| pard_draft_load(handles.model, draft.as_ptr(), null(), &mut handles.draft, error));
    }
    handles
});

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().expect("a path in UTF-8")).expect("no zero byte")
}

/// The status and the message of `call`.
fn outcome(call: impl FnOnce(*mut PardError) -> i32) -> (i32, String) {
    let error = pard_error_new();
    // SAFETY: the error lives until it is freed here.
    unsafe {
        let status = call(error);
        assert_eq!(pard_error_status(error), status);
        let message = text_at(pard_error_message(error));
        pard_error_free(error);
        (status, message)
    }
}

#[track_caller]
fn done(call: impl FnOnce(*mut PardError) -> i32) {
    let (status, message) = outcome(call);
    assert_eq!((status, message.as_str()), (OK, ""));
}

#[track_caller]
fn refused(expected: i32, part: &str, call: impl FnOnce(*mut PardError) -> i32) {
    let (status, message) = outcome(call);
    assert_eq!(status, expected, "{message}");
    assert!(message.contains(part), "no {part:?} in {message:?}");
}

unsafe fn text_at(text: *const c_char) -> String {
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8").to_owned()
}

fn zeros<T: Copy>() -> T {
    // SAFETY: the structs of pard.h, which this is used for, are valid with all bytes zero.
    unsafe { zeroed() }
}

/// A struct of zeros that knows its size.
macro_rules! sized {
    ($type:ty { $($field:ident: $value:expr),* $(,)? }) => {{
        let mut value = zeros::<$type>();
        value.size = size_of::<$type>();
        $(value.$field = $value;)*
        value
    }};
}

/// A session, freed at the end.
struct Session(*mut PardSession);

// SAFETY: the manual says that a session may move between threads.
unsafe impl Send for Session {}
// SAFETY: and that a call that finds it in use says so.
unsafe impl Sync for Session {}

impl Session {
    #[track_caller]
    fn new(draft: *const PardDraft, options: PardSessionOptions) -> Session {
        let mut session = null_mut();
        // SAFETY: all pointers are to what lives; so in the rest of this module.
        done(|error| unsafe { pard_session_new(HANDLES.model, draft, &options, &mut session, error) });
        Session(session)
    }

    fn small() -> Session {
        Session::new(null(), sized!(PardSessionOptions { context: 96 }))
    }

    #[track_caller]
    fn start(&self, options: PardAnswerOptions) {
        let message = PardMessage { role: c"user".as_ptr(), content: QUESTION.as_ptr() };
        done(|error| unsafe { pard_session_start_chat(self.0, &message, 1, &options, error) });
    }

    #[track_caller]
    fn round(&self) -> (String, Vec<u32>, PardRound) {
        let mut round = sized!(PardRound {});
        done(|error| unsafe { pard_session_round(self.0, &mut round, error) });
        unsafe {
            let text = text_at(round.text);
            assert_eq!(text.len(), round.text_length);
            (text, std::slice::from_raw_parts(round.tokens, round.token_count).to_vec(), round)
        }
    }

    fn text(&self) -> String {
        unsafe { text_at(pard_session_text(self.0)) }
    }

    #[track_caller]
    fn statistics(&self) -> PardStatistics {
        let mut statistics = sized!(PardStatistics {});
        done(|error| unsafe { pard_session_statistics(self.0, &mut statistics, error) });
        statistics
    }

    fn run(&self, on_round: Option<PardOnRound>, user: *mut c_void) -> (i32, String) {
        outcome(|error| unsafe { pard_session_run(self.0, on_round, user, error) })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe { pard_session_free(self.0) };
    }
}

/// The engine's own answer: text and tokens.
static EXPECTED: LazyLock<(String, Vec<u32>)> = LazyLock::new(|| {
    let files = ModelFiles::open(&MODELS.target).expect("the model opens");
    let model = Model::upload(device(), files, LoadOptions::default(), &|_, _| ()).expect("upload");
    let options = SequenceOptions::default().context(96);
    let mut decoder = Sequence::new(&model.weights, None, options).expect("a decoder");
    let question = Message::new("user", QUESTION.to_str().expect("UTF-8"));
    let prompt = model.text.chat_tokens(&[question], Rendering::default()).expect("a prompt");
    let limits = Limits::default().max_tokens(30);
    let mut generation = Generation::start(&mut decoder, &model.text, &prompt, limits).expect("a start");
    let text = generation.by_ref().collect::<pard::Result<String>>().expect("a text");
    (text, generation.output().to_vec())
});

fn thirty() -> PardAnswerOptions {
    sized!(PardAnswerOptions { max_tokens: 30 })
}

#[test]
fn null_is_refused_everywhere() {
    let model = HANDLES.model;
    let mut count = 0;
    let count = &raw mut count;
    let session = Session::small();
    unsafe {
        for call in [
            &|error| pard_device_open(null(), null_mut(), error) as _,
            &|error| pard_model_load(null(), c"x".as_ptr(), null(), &mut null_mut(), error),
            &|error| pard_model_load(HANDLES.device, null(), null(), &mut null_mut(), error),
            &|error| pard_model_load(HANDLES.device, c"x".as_ptr(), null(), null_mut(), error),
            &|error| pard_draft_load(null(), null(), null(), &mut null_mut(), error),
            &|error| pard_session_new(null(), null(), null(), &mut null_mut(), error),
            &|error| pard_session_new(model, null(), null(), null_mut(), error),
            &|error| pard_model_tokenize(model, null(), null_mut(), 0, count, error),
            &|error| pard_model_tokenize(model, c"x".as_ptr(), null_mut(), 0, null_mut(), error),
            &|error| pard_model_tokenize(model, c"x".as_ptr(), null_mut(), 1, count, error),
            &|error| pard_model_tokenize_chat(model, null(), 1, 0, null_mut(), 0, count, error),
            &|error| pard_model_detokenize(model, null(), 1, null_mut(), 0, count, error),
            &|error| pard_session_start(null_mut(), c"x".as_ptr(), null(), error),
            &|error| pard_session_start(session.0, null(), null(), error),
            &|error| pard_session_start_chat(session.0, null(), 1, null(), error),
            &|error| pard_session_start_tokens(session.0, null(), 1, null(), error),
            &|error| pard_session_round(null_mut(), null_mut(), error),
            &|error| pard_session_run(null_mut(), None, null_mut(), error),
            &|error| pard_session_statistics(session.0, null_mut(), error),
        ] as [&dyn Fn(*mut PardError) -> i32; 19]
        {
            refused(INVALID, "NULL", call);
            // And without anyone to tell.
            assert_eq!(call(null_mut()), INVALID);
        }
        let message = PardMessage { role: c"user".as_ptr(), content: null() };
        refused(INVALID, "content", |error| pard_session_start_chat(session.0, &message, 1, null(), error));
        let stop = [null()];
        let options = sized!(PardAnswerOptions { stop: stop.as_ptr(), stop_count: 1 });
        refused(INVALID, "stop", |error| pard_session_start(session.0, c"x".as_ptr(), &options, error));

        pard_error_free(null_mut());
        pard_device_free(null_mut());
        pard_model_free(null_mut());
        pard_draft_free(null_mut());
        pard_session_free(null_mut());
        pard_session_cancel(null_mut());
        assert_eq!(
            (pard_model_context(null()), pard_model_bytes(null()), pard_model_has_chat_template(null())),
            (0, 0, 0)
        );
        for text in [
            pard_device_name(null()),
            pard_model_name(null()),
            pard_session_text(null_mut()),
            pard_error_message(null()),
        ] {
            assert_eq!(text_at(text), "");
        }
    }
}

#[test]
fn what_cannot_be_done_has_its_status_and_names_the_fault() {
    let mut model: *mut PardModel = std::ptr::dangling_mut();
    let load = |name: *const c_char, model: *mut *mut PardModel, error| unsafe {
        pard_model_load(HANDLES.device, name, null(), model, error)
    };
    refused(NO_MODEL, "/no/such/model", |error| load(c"/no/such/model".as_ptr(), &mut model, error));
    assert!(model.is_null(), "a handle that was not made is NULL");
    refused(INVALID, "UTF-8", |error| load(c"a\xff".as_ptr(), &mut model, error));
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("model.gguf");
    std::fs::write(&copy, "GGUF").expect("writing");
    refused(BAD_MODEL, "model.gguf", |error| load(c_path(&copy).as_ptr(), &mut model, error));

    let other = folder.path().join("draft");
    std::fs::create_dir(&other).expect("a folder");
    for file in std::fs::read_dir(&MODELS.draft).expect("the draft").flatten() {
        std::fs::copy(file.path(), other.join(file.file_name())).expect("copying");
    }
    let tokenizer = std::fs::read_to_string(other.join("tokenizer.json")).expect("a tokenizer");
    let swapped = tokenizer.replace("\"X\":", "\"other\":").replace("\"Z\":", "\"X\":").replace("\"other\":", "\"Z\":");
    std::fs::write(other.join("tokenizer.json"), swapped).expect("writing");
    let mut draft = null_mut();
    refused(BAD_DRAFT, "\"Z\"", |error| unsafe {
        pard_draft_load(HANDLES.model, c_path(&other).as_ptr(), null(), &mut draft, error)
    });

    let device = sized!(PardDeviceOptions { device: c"no such adapter".as_ptr() });
    refused(NO_DEVICE, "no such adapter", |error| unsafe { pard_device_open(&device, &mut null_mut(), error) });
    let device = sized!(PardDeviceOptions { backend: c"opengl".as_ptr() });
    refused(INVALID, "opengl", |error| unsafe { pard_device_open(&device, &mut null_mut(), error) });

    let new = |options: PardSessionOptions, draft, error| unsafe {
        pard_session_new(HANDLES.model, draft, &options, &mut null_mut(), error)
    };
    refused(INVALID, "17", |error| new(sized!(PardSessionOptions { drafts: 17 }), HANDLES.draft, error));
    refused(INVALID, "-1", |error| new(sized!(PardSessionOptions { drafts: -1 }), HANDLES.draft, error));
    refused(INVALID, "method", |error| new(sized!(PardSessionOptions { method: 5 }), HANDLES.draft, error));
    refused(INVALID, "acceptance", |error| new(sized!(PardSessionOptions { acceptance: 2 }), HANDLES.draft, error));
    let unsure = sized!(PardSessionOptions { method: 4, drafts: 4, acceptance: 1 });
    refused(INVALID, "acceptance", |error| new(unsure, null(), error));
    let backwards = sized!(PardSessionOptions { method: 4, drafts: 4, ngram_longest: 1, ngram_shortest: 2 });
    refused(INVALID, "ngram", |error| new(backwards, null(), error));
    refused(INVALID, "draft", |error| new(sized!(PardSessionOptions { method: 3 }), null(), error));
    refused(INVALID, "run_ahead", |error| new(sized!(PardSessionOptions { run_ahead: 3 }), null(), error));

    let session = Session::small();
    let start = |tokens: &[u32], error| unsafe {
        pard_session_start_tokens(session.0, tokens.as_ptr(), tokens.len(), null(), error)
    };
    refused(BAD_PROMPT, "empty", |error| start(&[], error));
    refused(BAD_PROMPT, "96", |error| start(&[1; 96], error));
    refused(BAD_PROMPT, "999999", |error| start(&[1, 999_999], error));
    // A session that failed to start has no answer, and starts anew.
    assert_eq!((session.round().2.finish, session.text().as_str()), (CANCELLED, ""));
    session.start(thirty());
    assert_eq!(session.run(None, null_mut()).0, OK);
    assert_eq!(session.text(), EXPECTED.0);
}

#[test]
fn a_draft_that_does_not_read_its_targets_states_has_a_notice() {
    let folder = |name: &str| c_path(&Path::new(ROOT).join("tests/data/pard2/qwen3_td").join(name));
    let (mut model, mut draft) = (null_mut(), null_mut());
    done(|error| unsafe { pard_model_load(HANDLES.device, folder("target").as_ptr(), null(), &mut model, error) });
    let mut notices = |states: i32| {
        let options = sized!(PardLoadOptions { target_states: states });
        done(|error| unsafe { pard_draft_load(model, folder("draft").as_ptr(), &options, &mut draft, error) });
        // SAFETY: the notices live as long as the draft.
        unsafe {
            let notices: Vec<String> = (0..)
                .map(|at| pard_draft_notice(draft, at))
                .take_while(|text| !text.is_null())
                .map(|text| text_at(text))
                .collect();
            pard_draft_free(draft);
            notices
        }
    };
    assert_eq!(notices(0), [""; 0]);
    let off = notices(1);
    assert!(off.len() == 1 && off[0].contains("asked for"), "{off:?}");
    let unknown = sized!(PardLoadOptions { target_states: 2 });
    refused(INVALID, "target_states", |error| unsafe {
        pard_draft_load(model, folder("draft").as_ptr(), &unknown, &mut draft, error)
    });
    // SAFETY: as above.
    unsafe {
        assert!(pard_model_notice(model, 0).is_null() && pard_model_notice(null(), 0).is_null());
        pard_model_free(model);
    }
}

#[test]
fn structs_may_be_older_or_newer_than_the_library() {
    #[repr(C)]
    struct Newer {
        known: PardAnswerOptions,
        more: usize,
    }
    let session = Session::small();
    let start = |options: *const PardAnswerOptions, error| unsafe {
        pard_session_start(session.0, c"the other".as_ptr(), options, error)
    };
    let mut newer = Newer { known: sized!(PardAnswerOptions { size: size_of::<Newer>() }), more: 0 };
    done(|error| start((&raw const newer).cast(), error));
    newer.more = 1;
    refused(INVALID, "later version", |error| start((&raw const newer).cast(), error));
    // A struct of the first version with only the size and the first field: the rest has its defaults, whatever lies there.
    let older = sized!(PardAnswerOptions { size: 2 * size_of::<usize>(), max_tokens: 3, stop_count: 99 });
    done(|error| start(&older, error));
    assert_eq!(session.run(None, null_mut()).0, OK);
    assert_eq!(session.statistics().answer_tokens, 3);
    for size in [0, 7, usize::MAX] {
        let unsized_options = sized!(PardAnswerOptions { size: size });
        refused(INVALID, "size", |error| start(&unsized_options, error));
        let mut round = sized!(PardRound { size: size });
        refused(INVALID, "size", |error| unsafe { pard_session_round(session.0, &mut round, error) });
    }
    // Writing stops at the end of the caller's struct.
    let mut statistics = sized!(PardStatistics { size: 2 * size_of::<usize>(), rounds: 77 });
    done(|error| unsafe { pard_session_statistics(session.0, &mut statistics, error) });
    assert_eq!((statistics.size, statistics.rounds), (2 * size_of::<usize>(), 77));
}

#[test]
fn rounds_add_up_to_the_engines_answer() {
    let (expected, tokens) = &*EXPECTED;
    for (draft, method, drafts) in
        [(null_mut(), 1, 0), (HANDLES.draft, 1, 0), (HANDLES.draft, 2, 3), (HANDLES.draft, 0, 4), (HANDLES.draft, 3, 7)]
    {
        let session = Session::new(draft, sized!(PardSessionOptions { method: method, drafts: drafts, context: 96 }));
        session.start(thirty());
        let (mut text, mut written, mut proposed, mut accepted, mut rounds) = (String::new(), vec![], 0, 0, 0);
        loop {
            let (piece, tokens, round) = session.round();
            text += &piece;
            written.extend(tokens);
            (proposed, accepted, rounds) = (proposed + round.proposed, accepted + round.accepted, rounds + 1);
            assert_eq!(session.text(), text);
            if round.finish != WRITING {
                assert_eq!(round.finish, LENGTH);
                break;
            }
        }
        assert_eq!((&text, &written), (expected, tokens), "method {method}, K = {drafts}");
        let statistics = session.statistics();
        assert_eq!((statistics.rounds, statistics.answer_tokens, statistics.finish), (rounds, 30, LENGTH));
        assert_eq!(statistics.method, if method == 0 { 3 } else { method });
        assert_eq!(statistics.proposed.iter().sum::<usize>(), proposed);
        assert_eq!(statistics.accepted.iter().sum::<usize>(), accepted);
        assert_eq!(statistics.committed_tokens, rounds + accepted);
        assert!(proposed == rounds * drafts as usize && statistics.decode_seconds > 0.0);
        // An answer that has ended stays as it is.
        assert_eq!((session.round().0.as_str(), session.round().2.finish), ("", LENGTH));
        assert_eq!(session.text(), text);
    }
}

#[test]
fn an_answer_ends_where_it_is_told_to() {
    let session = Session::small();
    let expected = &EXPECTED.0;
    // A text in its middle, after which the beginning is left.
    let (at, _) = expected.char_indices().nth(expected.chars().count() / 2).expect("a text");
    let end = expected.char_indices().nth(expected.chars().count() / 2 + 3).expect("a text").0;
    let stop = CString::new(&expected[at..end]).expect("no zero byte");
    let stops = [c"never seen".as_ptr(), stop.as_ptr()];
    session.start(sized!(PardAnswerOptions { max_tokens: 30, stop: stops.as_ptr(), stop_count: 2 }));
    assert_eq!(session.run(None, null_mut()).0, OK);
    assert_eq!(session.text(), expected[..expected.find(stop.to_str().expect("UTF-8")).expect("it is there")]);
    assert_eq!(session.statistics().finish, 1);

    done(|error| unsafe { pard_session_start_tokens(session.0, [1; 95].as_ptr(), 95, null(), error) });
    let (_, tokens, round) = session.round();
    assert_eq!((tokens.len(), round.finish), (1, CONTEXT));
}

unsafe extern "C-unwind" fn keep_on(_: *const PardRound, _: *mut c_void) -> c_int {
    0
}

unsafe extern "C-unwind" fn panic_at_once(_: *const PardRound, _: *mut c_void) -> c_int {
    panic!("a callback's own fault")
}

unsafe extern "C-unwind" fn call_back(_: *const PardRound, session: *mut c_void) -> c_int {
    let session: *mut PardSession = session.cast();
    unsafe {
        assert_eq!(pard_session_round(session, null_mut(), null_mut()), BUSY);
        assert_eq!(pard_session_start(session, c"x".as_ptr(), null(), null_mut()), BUSY);
        assert_eq!(text_at(pard_session_text(session)), "");
        pard_session_cancel(session);
    }
    0
}

#[test]
fn callbacks_may_neither_disturb_an_answer_nor_take_the_program_down() {
    let session = Session::small();
    session.start(thirty());
    let (status, message) = session.run(Some(panic_at_once), null_mut());
    assert_eq!(status, INTERNAL);
    assert!(message.contains("a callback's own fault"), "{message}");
    // The next call writes the rest.
    assert_eq!(session.run(Some(keep_on), null_mut()), (OK, String::new()));
    assert_eq!(session.text(), EXPECTED.0);

    session.start(thirty());
    assert_eq!(session.run(Some(call_back), session.0.cast()), (OK, String::new()));
    let statistics = session.statistics();
    assert_eq!((statistics.rounds, statistics.finish), (1, CANCELLED));
    // A cancelled answer does not cancel the next.
    session.start(thirty());
    assert_eq!(session.run(None, null_mut()).0, OK);
    assert_eq!(session.text(), EXPECTED.0);
}

unsafe extern "C-unwind" fn note_round(_: *const PardRound, writing: *mut c_void) -> c_int {
    unsafe { &*writing.cast::<AtomicBool>() }.store(true, Ordering::Relaxed);
    0
}

#[test]
fn another_thread_finds_a_session_in_use_and_can_cancel_it() {
    let session = Session::new(null(), sized!(PardSessionOptions { context: 4096 }));
    session.start(sized!(PardAnswerOptions { max_tokens: 4000 }));
    let writing = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (session, writing) = (&session, &writing);
            session.run(Some(note_round), std::ptr::from_ref(writing).cast_mut().cast())
        });
        while !writing.load(Ordering::Relaxed) {
            assert!(!writer.is_finished(), "not a round was written");
            std::thread::yield_now();
        }
        refused(BUSY, "in use", |error| unsafe { pard_session_round(session.0, null_mut(), error) });
        unsafe { pard_session_cancel(session.0) };
        assert_eq!(writer.join().expect("no panic"), (OK, String::new()));
    });
    let statistics = session.statistics();
    assert_eq!(statistics.finish, CANCELLED);
    assert!(statistics.answer_tokens < 4000 && statistics.answer_tokens == statistics.rounds);
}

#[test]
fn sessions_on_several_threads_share_a_model() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let draft = if thread % 2 == 0 { null_mut() } else { HANDLES.draft };
                let session = Session::new(draft, sized!(PardSessionOptions { drafts: 4, context: 96 }));
                for _ in 0..2 {
                    session.start(thirty());
                    assert_eq!(session.run(None, null_mut()).0, OK);
                    assert_eq!(session.text(), EXPECTED.0);
                }
            });
        }
    });
}

#[test]
fn a_draft_serves_the_model_it_was_loaded_for() {
    let path = c_path(&MODELS.target);
    let (mut other, mut session) = (null_mut(), null_mut());
    unsafe {
        done(|error| pard_model_load(HANDLES.device, path.as_ptr(), null(), &mut other, error));
        refused(BAD_DRAFT, "another model", |error| {
            pard_session_new(other, HANDLES.draft, null(), &mut session, error)
        });
        pard_model_free(other);
    }
}

#[test]
fn a_model_is_loaded_from_memory() {
    let entries = std::fs::read_dir(&MODELS.target).expect("the model").flatten();
    let files: Vec<(CString, Vec<u8>)> = entries
        .map(|entry| (c_path(Path::new(&entry.file_name())), std::fs::read(entry.path()).expect("a file")))
        .collect();
    let borrowed = files.iter().map(|(name, bytes)| PardFile {
        name: name.as_ptr(),
        bytes: bytes.as_ptr().cast(),
        size: bytes.len(),
    });
    let mut borrowed: Vec<PardFile> = borrowed.collect();
    let mut model = null_mut();
    let mut load = |files: &[PardFile], error| unsafe {
        pard_model_load_files(HANDLES.device, c"small".as_ptr(), files.as_ptr(), files.len(), null(), &mut model, error)
    };
    refused(NO_MODEL, "config.json", |error| load(&[], error));
    done(|error| load(&borrowed, error));
    unsafe {
        // The model needs none of the files any more.
        drop(files);
        assert_eq!(text_at(pard_model_name(model)), "small");
        let mut session = null_mut();
        let options = sized!(PardSessionOptions { context: 96 });
        done(|error| pard_session_new(model, null(), &options, &mut session, error));
        pard_model_free(model);
        let session = Session(session);
        session.start(thirty());
        assert_eq!(session.run(None, null_mut()).0, OK);
        assert_eq!(session.text(), EXPECTED.0);
    }
    borrowed[0].bytes = null();
    let (status, message) = outcome(|error| unsafe {
        pard_model_load_files(HANDLES.device, c"x".as_ptr(), borrowed.as_ptr(), 1, null(), &mut null_mut(), error)
    });
    assert!(status == INVALID && message.contains("bytes is NULL"), "{message}");
}

#[test]
fn text_and_tokens_go_into_what_room_there_is() {
    let (model, text) = (HANDLES.model, c"the naïve 日本");
    let mut count = 0;
    let mut tokens = [u32::MAX; 64];
    unsafe {
        done(|error| pard_model_tokenize(model, text.as_ptr(), null_mut(), 0, &mut count, error));
        done(|error| pard_model_tokenize(model, text.as_ptr(), tokens.as_mut_ptr(), 3, &mut count, error));
        assert!(count > 3 && tokens[3] == u32::MAX && tokens[2] != u32::MAX);
        done(|error| pard_model_tokenize(model, text.as_ptr(), tokens.as_mut_ptr(), 64, &mut count, error));
        let whole = text.to_str().expect("UTF-8");
        for capacity in [64, whole.len() + 1, whole.len(), whole.len() - 2, 1, 0] {
            let mut bytes = [b'?'; 64];
            let mut length = 0;
            let out = bytes.as_mut_ptr().cast();
            done(|error| pard_model_detokenize(model, tokens.as_ptr(), count, out, capacity, &mut length, error));
            assert_eq!(length, whole.len());
            if let Some(room) = capacity.checked_sub(1) {
                let written =
                    CStr::from_bytes_until_nul(&bytes).expect("a zero byte").to_str().expect("whole characters");
                assert!(
                    whole.starts_with(written) && written.len() <= room && written.len() + 3 > room.min(whole.len())
                );
            } else {
                assert_eq!(bytes, [b'?'; 64]);
            }
        }
        let message = PardMessage { role: c"user".as_ptr(), content: c"Hi".as_ptr() };
        done(|error| pard_model_tokenize_chat(model, &message, 1, 0, tokens.as_mut_ptr(), 64, &mut count, error));
        let expected = ModelFiles::open(&MODELS.target).expect("the model opens").text;
        let expected = expected.chat_tokens(&[Message::new("user", "Hi")], Rendering::default()).expect("tokens");
        assert_eq!(tokens[..count], expected);
        assert_eq!(pard_model_has_chat_template(model), 1);
        assert_eq!(pard_model_context(model), 512);
        assert!(pard_model_bytes(model) > 0 && text_at(pard_model_name(model)) == "target");
    }
}
