//! Kernels, timed by the device's own clock.

use std::time::Instant;

use super::Spread;
use crate::error::Result;
use crate::gpu::{Device, Profile, Work};

/// A kernel on one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// Named as its file.
    pub kernel: &'static str,
    /// Work of one call.
    pub work: Work,
    /// Calls that were timed, all of them.
    pub seconds: Spread,
    /// Total time of all calls.
    pub total: f64,
}

/// Runs `work` while a profile is taken; returns the profile and the seconds on the host's clock.
///
/// # Errors
///
/// Those of [`Device::start_profile`] and of `work`.
pub fn profiled(device: &Device, work: &mut dyn FnMut() -> Result<()>) -> Result<(Profile, f64)> {
    device.start_profile(false)?;
    let begin = Instant::now();
    let done = work().and_then(|()| device.wait());
    let seconds = begin.elapsed().as_secs_f64();
    let profile = device.end_profile()?;
    done.map(|()| (profile, seconds))
}

/// The kernels of `profile`, those first that took longest.
pub fn kernels(profile: &Profile) -> Vec<KernelTime> {
    let mut groups: Vec<(&'static str, Work, Vec<f64>)> = Vec::new();
    for dispatch in profile.submits.iter().flatten() {
        let seconds = dispatch.end - dispatch.begin;
        match groups.iter_mut().find(|(kernel, work, _)| *kernel == dispatch.kernel && *work == dispatch.work) {
            Some((_, _, times)) => times.push(seconds),
            None => groups.push((dispatch.kernel, dispatch.work, vec![seconds])),
        }
    }
    let time = |(kernel, work, times): (&'static str, Work, Vec<f64>)| {
        let seconds = Spread::of(&times)?;
        Some(KernelTime { kernel, work, seconds, total: times.iter().sum() })
    };
    let mut times: Vec<KernelTime> = groups.into_iter().filter_map(time).collect();
    times.sort_by(|one, other| other.total.total_cmp(&one.total));
    times
}
