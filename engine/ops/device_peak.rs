//! Peak rates of the device, by the simplest kernels there are: shaders/kernels/bandwidth.wgsl and
//! shaders/kernels/multiply.wgsl. Other kernels are compared with them. A data sheet would state more, for a device
//! that does nothing else.

use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, KernelPlan, Pass, Work};

/// Bytes that no cache holds: more than five times the largest known (an H200 has 50 MB, a desktop CPU 32 MB).
pub const COLD_BYTES: u64 = 256 << 20;
/// One source; two of them hold the cold bytes, and each fits the smallest binding there is.
const SOURCE_BYTES: u64 = 128 << 20;
/// Places that an invocation of `bandwidth` reads in turns: which number is best depends on the device.
const STREAMS: [u32; 3] = [1, 4, 8];
/// Steps of `multiply`.
const MULTIPLY_STEPS: u32 = 1024;
/// Its sums of four per invocation: too few wait for each other, too many do not fit the registers.
const MULTIPLY_SUMS: [u32; 3] = [2, 3, 8];
/// Repetitions of each measurement.
const REPETITIONS: usize = 3;

/// Peak rates of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakRates {
    /// Bytes read per second from memory that no cache holds.
    pub read: f64,
    /// Additions and multiplications per second in f32.
    pub multiply: f64,
}

/// Kernels that only read, and one that only multiplies, with their operands bound.
pub struct PeakProbe {
    /// For each of [`STREAMS`], a dispatch for each source.
    reads: Vec<Vec<Dispatch>>,
    sums: Buffer,
    source_bytes: u64,
    /// For each of [`MULTIPLY_SUMS`], with its additions and multiplications.
    multiplies: Vec<(Dispatch, usize)>,
}

impl PeakProbe {
    /// Fills the sources with the words that `word` gives for their index.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn new(device: &Device, plan: &KernelPlan, word: impl Fn(u64) -> u64) -> Result<PeakProbe> {
        // A CPU's prefetcher likes long streams, a GPU many workgroups.
        let (steps, multiply_groups) = if device.is_software() { (64, 64) } else { (8, 16384) };
        let invocations = u64::from(plan.lanes * plan.slices);
        let group_bytes = invocations * 16 * u64::from(STREAMS[STREAMS.len() - 1] * steps);
        let source_bytes = device.largest_binding().min(SOURCE_BYTES) / group_bytes * group_bytes;
        let read_groups = |streams: u32| source_bytes / (invocations * 16 * u64::from(streams * steps));
        let sums = Buffer::storage(device, "sums", (read_groups(STREAMS[0]) * invocations * 4).max(64 * 16 * 16384))?;
        let sources = (0..COLD_BYTES.div_ceil(source_bytes))
            .map(|source| {
                let first = source * source_bytes / 8;
                let words: Vec<u64> = (first..first + source_bytes / 8).map(&word).collect();
                Buffer::with_values(device, "source", &words)
            })
            .collect::<Result<Vec<_>>>()?;
        let read = |streams: u32| {
            let constants = [("STREAMS", streams), ("STEPS", steps), ("LANES", plan.lanes), ("SLICES", plan.slices)];
            let kernel = device.kernel(&["bandwidth"], &constants)?;
            let grid = [read_groups(streams) as u32, 1, 1];
            sources.iter().map(|source| kernel.dispatch(device, &[source, &sums], grid)).collect()
        };
        let multiply = |multiply_sums: u32| -> Result<_> {
            let kernel = device.kernel(&["multiply"], &[("STEPS", MULTIPLY_STEPS), ("SUMS", multiply_sums)])?;
            let flops = u64::from(multiply_groups * 64 * MULTIPLY_STEPS) * u64::from(multiply_sums * 8);
            Ok((kernel.dispatch(device, &[&sums], [multiply_groups, 1, 1])?, flops as usize))
        };
        Ok(PeakProbe {
            reads: STREAMS.into_iter().map(read).collect::<Result<_>>()?,
            multiplies: MULTIPLY_SUMS.into_iter().map(multiply).collect::<Result<_>>()?,
            sums,
            source_bytes,
        })
    }

    /// Bytes that one reading takes.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }

    /// Returns the buffer in which the words read are combined.
    pub fn sums(&self) -> &Buffer {
        &self.sums
    }

    /// Returns the number of ways of reading.
    pub fn variants(&self) -> usize {
        self.reads.len()
    }

    /// Records a reading of one source by the given variant. The sources take turns, so that no cache helps.
    pub fn encode_read(&self, pass: &mut Pass, variant: usize, repetition: usize) {
        let reads = &self.reads[variant];
        let work = Work::of(0, [1, 0], self.source_bytes as usize, 0).stored();
        reads[repetition % reads.len()].encode(pass, work);
    }

    /// Measures the device by its own clock: the best of several tries each, since other work only ever slows it down.
    ///
    /// # Errors
    ///
    /// Those of [`Device::start_profile`] and [`Device::check`](crate::gpu::GpuContext::check).
    pub fn measure(&self, device: &Device) -> Result<PeakRates> {
        device.start_profile(false)?;
        for _ in 0..REPETITIONS {
            for variant in 0..self.reads.len() {
                Pass::submit(device, None, |pass| {
                    (0..self.reads[variant].len()).for_each(|source| self.encode_read(pass, variant, source));
                    Ok(())
                })?;
                device.wait()?;
            }
            Pass::submit(device, None, |pass| {
                self.multiplies
                    .iter()
                    .for_each(|(dispatch, flops)| dispatch.encode(pass, Work::of(0, [1, 0], 0, *flops)));
                Ok(())
            })?;
            device.wait()?;
        }
        let profile = device.end_profile()?;
        let dispatches = || profile.submits.iter().flatten();
        let best = |amount: fn(&Work) -> u64| {
            dispatches()
                .map(|dispatch| amount(&dispatch.work) as f64 / (dispatch.end - dispatch.begin).max(1e-9))
                .fold(0.0, f64::max)
        };
        Ok(PeakRates { read: best(|work| work.bytes), multiply: best(|work| work.flops) })
    }
}
