//! `pard_model` and `pard_draft`.

use std::ffi::{CString, c_char, c_void};
use std::ptr::null;
use std::sync::Arc;

use super::arguments::{self, Shared};
use super::device::PardDevice;
use super::failure::{Failure, PardError, PardStatus, c_string, free, give};
use pard::checkpoint::options::{DownloadProgress, Found, SourceOptions};
use pard::checkpoint::resolve;
use pard::checkpoint::storage::Memory;
use pard::checkpoint::{DraftFiles, ModelFiles};
use pard::decoding::Draft;
use pard::low_level::gpu::{CacheFormat, Device, MatmulChoice};
use pard::low_level::ops::WeightFormat;
use pard::model::{LoadOptions, Model, StatesChoice, WeightDtype};

/// `pard_model`: a model on a device.
pub struct PardModel {
    pub(super) model: Arc<Model>,
    name: CString,
    notices: Vec<CString>,
}

/// `pard_draft`: a draft, and the model it drafts for.
pub struct PardDraft {
    pub(super) draft: Draft,
    pub(super) target: Arc<Model>,
    notices: Vec<CString>,
}

impl PardDraft {
    fn new(draft: Draft, target: &Arc<Model>) -> PardDraft {
        let notices = draft.notices.iter().chain(draft.model.notices()).map(|notice| c_string(notice)).collect();
        PardDraft { draft, target: target.clone(), notices }
    }
}

/// `pard_progress`.
pub type PardProgress = unsafe extern "C-unwind" fn(what: *const c_char, done: u64, total: u64, user: *mut c_void);

/// `pard_load_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardLoadOptions {
    /// Its size in bytes.
    pub size: usize,
    /// Format of the weights.
    pub weights: i32,
    /// Format of the KV cache.
    pub cache: i32,
    /// Kernels used for matrix products.
    pub products: i32,
    /// A draft's mask token.
    pub mask_token: *const u32,
    /// Is told how far loading has come.
    pub progress: Option<PardProgress>,
    /// Handed to it.
    pub user: *mut c_void,
    /// Use of the target's hidden states by a draft.
    pub target_states: i32,
}

// SAFETY: it is `repr(C)`, begins with its size, and zeros are NULL.
unsafe impl Shared for PardLoadOptions {}

impl PardLoadOptions {
    fn load_options(&self) -> Result<LoadOptions, Failure> {
        let unknown = |option, value| Failure::argument(format!("{option} is {value}, which means nothing"));
        Ok(LoadOptions::default()
            .dtype(match self.weights {
                0 => WeightDtype::Compact,
                1 => WeightDtype::F32,
                2 => WeightDtype::Bf16,
                3 => WeightDtype::Quantised { layers: WeightFormat::Q8_0, ends: WeightFormat::Q8_0 },
                4 => WeightDtype::Quantised { layers: WeightFormat::Q4K, ends: WeightFormat::Q8_0 },
                other => return Err(unknown("weights", other)),
            })
            .cache(match self.cache {
                0 => CacheFormat::F16,
                1 => CacheFormat::F32,
                2 => CacheFormat::Q8_0,
                other => return Err(unknown("cache", other)),
            })
            .products(match self.products {
                0 => MatmulChoice::Plain,
                1 => MatmulChoice::Cooperative,
                other => return Err(unknown("products", other)),
            })
            .target_states(match self.target_states {
                0 => StatesChoice::Auto,
                1 => StatesChoice::Off,
                other => return Err(unknown("target_states", other)),
            }))
    }

    fn report(&self, what: &str, done: u64, total: u64) {
        if let Some(progress) = self.progress {
            let what = c_string(what);
            // SAFETY: the caller has handed over a function of this type.
            unsafe { progress(what.as_ptr(), done, total, self.user) };
        }
    }

    /// The model `name` on this machine, downloaded if need be; a GGUF file that has to be chosen fits `device`.
    fn find(&self, name: &str, device: &Device) -> Result<Found, Failure> {
        let memory = || device.memory().total;
        let options = SourceOptions::from_env().progress(Some(self)).memory(Some(&memory));
        Ok(resolve::find(name, &options)?)
    }
}

impl DownloadProgress for PardLoadOptions {
    fn report(&self, file: &str, done: u64, total: u64) {
        PardLoadOptions::report(self, file, done, total);
    }
}

/// `pard_model_load`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_load(
    device: *const PardDevice,
    name: *const c_char,
    options: *const PardLoadOptions,
    model: *mut *mut PardModel,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: the pointers are what the manual asks for; so in all of this module.
    unsafe {
        give(model, error, || {
            let device = arguments::handle(device, "device")?;
            let name = arguments::text(name, "name")?;
            let options = arguments::options(options, "pard_load_options")?;
            options.load_options()?;
            let found = options.find(name, &device.device)?;
            let mut model = load(device, ModelFiles::open(&found.path)?, &options)?;
            model.notices.extend(found.notice.map(|notice| c_string(&notice)));
            Ok(model)
        })
    }
}

fn load(device: &PardDevice, files: ModelFiles, options: &PardLoadOptions) -> Result<PardModel, Failure> {
    let name = files.name().to_owned();
    let progress = |done, total| options.report(&name, done, total);
    let model = Model::upload(&device.device, files, options.load_options()?, &progress)?;
    let notices = model.weights.notices().iter().map(|notice| c_string(notice)).collect();
    Ok(PardModel { name: c_string(model.name()), notices, model: Arc::new(model) })
}

/// `pard_file`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardFile {
    /// Its name.
    pub name: *const c_char,
    /// Its contents.
    pub bytes: *const c_void,
    /// Size in bytes.
    pub size: usize,
}

/// A caller's bytes.
struct Borrowed {
    bytes: *const u8,
    size: usize,
}

// SAFETY: nobody writes to them while they are borrowed.
unsafe impl Send for Borrowed {}
// SAFETY: as above.
unsafe impl Sync for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the caller lends them until the call returns, and a model keeps no file once it is uploaded.
        unsafe { std::slice::from_raw_parts(self.bytes, self.size) }
    }
}

/// `pard_model_load_files`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_load_files(
    device: *const PardDevice,
    name: *const c_char,
    files: *const PardFile,
    file_count: usize,
    options: *const PardLoadOptions,
    model: *mut *mut PardModel,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        give(model, error, || {
            let device = arguments::handle(device, "device")?;
            let name = arguments::text(name, "name")?;
            let options = arguments::options(options, "pard_load_options")?;
            let mut storage = Memory::new();
            for file in arguments::list(files, file_count, "files")? {
                let bytes = arguments::list(file.bytes.cast::<u8>(), file.size, "bytes")?;
                let borrowed = Borrowed { bytes: bytes.as_ptr(), size: bytes.len() };
                storage = storage.with(arguments::text(file.name, "a file's name")?, borrowed);
            }
            load(device, ModelFiles::from_storage(name, &storage)?, &options)
        })
    }
}

/// `pard_model_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_free(model: *mut PardModel) {
    // SAFETY: as above.
    unsafe { free(model) };
}

/// `pard_model_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_name(model: *const PardModel) -> *const c_char {
    // SAFETY: as above.
    unsafe { model.as_ref() }.map_or(c"".as_ptr(), |model| model.name.as_ptr())
}

/// `pard_model_context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_context(model: *const PardModel) -> usize {
    // SAFETY: as above.
    unsafe { model.as_ref() }.map_or(0, |model| model.model.weights.config().context)
}

/// `pard_model_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_bytes(model: *const PardModel) -> u64 {
    // SAFETY: as above.
    unsafe { model.as_ref() }.map_or(0, |model| model.model.weights.bytes())
}

/// `pard_model_has_chat_template`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_has_chat_template(model: *const PardModel) -> i32 {
    // SAFETY: as above.
    unsafe { model.as_ref() }.map_or(0, |model| model.model.text.has_chat_template().into())
}

/// `pard_model_notice`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_notice(model: *const PardModel, index: usize) -> *const c_char {
    // SAFETY: as above.
    notice(unsafe { model.as_ref() }.map(|model| &model.notices), index)
}

fn notice(notices: Option<&Vec<CString>>, index: usize) -> *const c_char {
    notices.and_then(|notices| notices.get(index)).map_or(null(), |notice| notice.as_ptr())
}

/// `pard_draft_load`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_draft_load(
    target: *const PardModel,
    name: *const c_char,
    options: *const PardLoadOptions,
    draft: *mut *mut PardDraft,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        give(draft, error, || {
            let target = &arguments::handle(target, "target")?.model;
            let name = arguments::optional_text(name, "name")?;
            let options = arguments::options(options, "pard_load_options")?;
            let load_options = options.load_options()?;
            let mask = options.mask_token.as_ref().copied();
            let Some(name) = name else {
                let draft = Draft::new(target, target, mask)?;
                return Ok(PardDraft::new(draft, target));
            };
            let device = target.weights.device();
            let found = options.find(name, device)?;
            let files = DraftFiles::open(&found.path)?.beside(&target.text);
            let name = files.name().to_owned();
            let progress = |done, total| options.report(&name, done, total);
            // Before the upload, which takes its time.
            Draft::check(&files.text.tokenizer, &target.text.tokenizer, Draft::mask(&files.config, mask)?)?;
            let model = Model::upload_draft(device, files, target, load_options, &progress)?;
            let mut draft = Draft::new(&model, target, mask)?;
            draft.notices.extend(found.notice);
            Ok(PardDraft::new(draft, target))
        })
    }
}

/// `pard_draft_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_draft_free(draft: *mut PardDraft) {
    // SAFETY: as above.
    unsafe { free(draft) };
}

/// `pard_draft_notice`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_draft_notice(draft: *const PardDraft, index: usize) -> *const c_char {
    // SAFETY: as above.
    notice(unsafe { draft.as_ref() }.map(|draft| &draft.notices), index)
}
