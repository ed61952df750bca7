//! `pard_device`.

use std::ffi::{CString, c_char};

use super::arguments::{self, Shared};
use super::failure::{PardError, PardStatus, c_string, free, give};
use pard::low_level::gpu::{AdapterQuery, Device};

/// `pard_device`: an open adapter.
pub struct PardDevice {
    pub(super) device: Device,
    name: CString,
}

/// `pard_device_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardDeviceOptions {
    /// Its size in bytes.
    pub size: usize,
    /// The adapter.
    pub device: *const c_char,
    /// The interface.
    pub backend: *const c_char,
}

// SAFETY: it is `repr(C)`, begins with its size, and zeros are NULL.
unsafe impl Shared for PardDeviceOptions {}

/// `pard_device_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_device_open(
    options: *const PardDeviceOptions,
    device: *mut *mut PardDevice,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: the pointers are what the manual asks for; so in all of this module.
    unsafe {
        give(device, error, || {
            let options = arguments::options(options, "pard_device_options")?;
            let owned = |string, what| arguments::optional_text(string, what).map(|text| text.map(str::to_owned));
            let query = AdapterQuery::default()
                .device(owned(options.device, "device")?)
                .backend(owned(options.backend, "backend")?);
            let device = Device::open(&query)?;
            Ok(PardDevice { name: c_string(&device.name()), device })
        })
    }
}

/// `pard_device_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_device_free(device: *mut PardDevice) {
    // SAFETY: as above.
    unsafe { free(device) };
}

/// `pard_device_name`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_device_name(device: *const PardDevice) -> *const c_char {
    // SAFETY: as above.
    unsafe { device.as_ref() }.map_or(c"".as_ptr(), |device| device.name.as_ptr())
}
