//! Timing of kernels: enough dispatches in one submit to take a while, several submits, with comparable cases taking
//! turns, and the median of them, since machines are noisy. A time includes recording and submitting its dispatch;
//! `accept`, one invocation, shows how much that is.

use std::time::Instant;

use pard::Result;
use pard::low_level::gpu::{AdapterQuery, Buffer, Device, KernelPlan, Pass};
use pard::low_level::ops::{COLD_BYTES, MAX_ROWS, PeakProbe, Step, Tensor};

use crate::comparison;
use crate::oracle::Expected;

/// Copies of something small: no model has more layers.
const MAX_COPIES: u64 = 256;
/// Shortest duration of one submit, in seconds.
const SUBMIT_SECONDS: f64 = 0.02;
/// The most dispatches in one submit.
pub const MAX_REPETITIONS: usize = 1 << 16;
/// Timed submits of each case.
const SUBMITS: usize = 7;

/// Rows of a chunk of a prompt.
pub const PROMPT_ROWS: usize = 256;

/// The number of copies of `bytes` bytes after which the first is in no cache when its turn comes again.
pub fn cold_copies(bytes: u64) -> usize {
    COLD_BYTES.div_ceil(bytes).min(MAX_COPIES) as usize
}

/// Records the repetition of the given number.
pub type Record<'a> = Box<dyn Fn(&mut Pass, usize) -> Result<()> + 'a>;

/// Records the same whichever repetition it is.
pub fn each<'a>(record: impl Fn(&mut Pass) + 'a) -> Record<'a> {
    Box::new(move |pass, _| {
        record(pass);
        Ok(())
    })
}

/// One kernel on one shape.
pub struct Case<'a> {
    /// The shader's name.
    pub kernel: &'static str,
    /// The shape, but for its rows.
    pub what: String,
    /// Rows of activations.
    pub rows: usize,
    /// Bytes that the operation must read and write, were nothing read twice.
    pub bytes: usize,
    /// Additions and multiplications.
    pub flops: usize,
    /// A buffer, and the bytes written to it before each submit.
    pub state: (&'a Buffer, Vec<u8>),
    /// Records one dispatch.
    pub record: Record<'a>,
}

/// The device under test and the yardstick.
pub struct Bench {
    pub device: Device,
    pub plan: KernelPlan,
    /// The step that all cases share.
    pub step: Buffer,
    filter: String,
    yardstick: Reader,
}

/// The engine's yardstick, checked, and the variant of it that reads fastest here.
struct Reader {
    yardstick: PeakProbe,
    variant: usize,
}

impl Reader {
    fn new(device: &Device, plan: &KernelPlan) -> Result<Reader> {
        let word = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        let mut reader = Reader { yardstick: PeakProbe::new(device, plan, word)?, variant: 0 };
        let words = reader.yardstick.source_bytes() / 8;
        let fold =
            |words: std::ops::Range<u64>| words.map(word).fold(0, |sum, word| sum ^ word as u32 ^ (word >> 32) as u32);
        let expected = fold(0..words);
        let mut seconds = vec![f64::INFINITY; reader.yardstick.variants()];
        for turn in 0..4 {
            for (variant, seconds) in seconds.iter_mut().enumerate() {
                let sums = reader.yardstick.sums();
                sums.write(device, 0, &vec![0u32; sums.bytes() as usize / 4]);
                device.wait()?;
                let begin = Instant::now();
                Pass::submit(device, None, |pass| {
                    reader.yardstick.encode_read(pass, variant, 0);
                    Ok(())
                })?;
                device.wait()?;
                // The first turn compiles.
                if turn > 0 {
                    *seconds = seconds.min(begin.elapsed().as_secs_f64());
                }
                let actual: Vec<u32> = sums.read(device, 0, sums.bytes() as usize / 4)?;
                assert_eq!(actual.iter().fold(0, |sum, word| sum ^ word), expected, "bandwidth, variant {variant}");
            }
        }
        reader.variant = (0..seconds.len()).min_by(|&a, &b| seconds[a].total_cmp(&seconds[b])).unwrap_or(0);
        Ok(reader)
    }

    fn case(&self) -> Case<'_> {
        let bytes = self.yardstick.source_bytes();
        Case {
            kernel: "bandwidth",
            what: format!("{} MiB", bytes >> 20),
            rows: 0,
            bytes: bytes as usize,
            flops: 0,
            state: (self.yardstick.sums(), vec![]),
            record: Box::new(|pass, repetition| {
                self.yardstick.encode_read(pass, self.variant, repetition);
                Ok(())
            }),
        }
    }
}

impl Bench {
    /// The best adapter. `filter` is a part of the names of the kernels that are wanted.
    pub fn open(filter: String) -> Result<Bench> {
        let device = Device::open(&AdapterQuery::default())?;
        let plan = device.default_plan();
        let step = Buffer::shared::<Step>(&device, "step")?;
        Ok(Bench { yardstick: Reader::new(&device, &plan)?, plan, device, step, filter })
    }

    /// Returns `true` if `kernel` is to be timed.
    pub fn wants(&self, kernel: &str) -> bool {
        kernel.contains(&self.filter)
    }

    /// Prints the head of the table, and the yardstick.
    pub fn begin(&self) -> Result<()> {
        println!("| kernel | case | rows | µs | min..max | GB/s | of bandwidth | GFLOP/s |");
        println!("|---|---|--:|--:|--:|--:|--:|--:|");
        self.time(&[self.yardstick.case()])
    }

    /// The step of `rows` rows from position `start` on, as a case's state.
    pub fn at(&self, start: usize, rows: usize) -> (&Buffer, Vec<u8>) {
        let (start, rows) = (start as u32, rows as u32);
        let step = Step { start, rows, outputs: rows, ..Step::default() };
        (&self.step, bytemuck::bytes_of(&step).to_vec())
    }

    /// `values` as rows of `width`, with as much room as the ops ask for.
    pub fn tensor(&self, width: usize, values: &[f32]) -> Result<Tensor> {
        let tensor = Tensor::new(&self.device, "input", MAX_ROWS.max(values.len() / width), width)?;
        tensor.buffer.write(&self.device, 0, values);
        Ok(tensor)
    }

    /// Runs `case` and returns the first `count` values of `output`, which holds NaN before.
    pub fn result<T: bytemuck::AnyBitPattern>(&self, case: &Case, output: &Buffer, count: usize) -> Result<Vec<T>> {
        output.write(&self.device, 0, &vec![u32::MAX; output.bytes() as usize / 4]);
        self.submit(case, 0, 1)?;
        output.read(&self.device, 0, count)
    }

    /// Stops the bench unless `actual` is within the bounds of as many first elements of `expected`.
    pub fn check(&self, case: &Case, actual: &[f32], expected: &Expected) {
        let context = format!("{}, {} rows, {}", case.what, case.rows, self.device.name());
        let (values, bound) = (&expected.values[..actual.len()], &expected.bound[..actual.len()]);
        comparison::check(case.kernel, &context, actual, values, bound);
    }

    /// Times `cases` in turns and prints a row for each.
    pub fn time(&self, cases: &[Case]) -> Result<()> {
        let yardstick = self.yardstick.case();
        let turns: Vec<&Case> = std::iter::once(&yardstick).chain(cases).collect();
        let mut counts = vec![1; turns.len()];
        for (case, count) in turns.iter().zip(&mut counts) {
            while self.submit(case, 0, *count)? < SUBMIT_SECONDS && *count < MAX_REPETITIONS {
                *count *= 2;
            }
        }
        let mut seconds = vec![Vec::new(); turns.len()];
        for turn in 0..SUBMITS {
            for ((case, &count), seconds) in turns.iter().zip(&counts).zip(&mut seconds) {
                seconds.push(self.submit(case, turn * count, count)? / count as f64);
            }
        }
        for seconds in &mut seconds {
            seconds.sort_by(f64::total_cmp);
        }
        let bandwidth = yardstick.bytes as f64 / seconds[0][SUBMITS / 2];
        for (case, seconds) in turns.iter().zip(&seconds).skip(1) {
            let (least, median, most) = (seconds[0], seconds[SUBMITS / 2], seconds[SUBMITS - 1]);
            let rows = if case.rows == 0 { "-".to_owned() } else { case.rows.to_string() };
            let flops =
                if case.flops == 0 { "-".to_owned() } else { format!("{:.2}", case.flops as f64 / median / 1e9) };
            let rate = case.bytes as f64 / median;
            println!(
                "| {} | {} | {rows} | {:.1} | {:.1}..{:.1} | {:.2} | {:.0} % | {flops} |",
                case.kernel,
                case.what,
                median * 1e6,
                least * 1e6,
                most * 1e6,
                rate / 1e9,
                100.0 * rate / bandwidth,
            );
        }
        Ok(())
    }

    /// Seconds for `count` repetitions in one submit.
    fn submit(&self, case: &Case, first: usize, count: usize) -> Result<f64> {
        let (buffer, state) = &case.state;
        buffer.write(&self.device, 0, state);
        let begin = Instant::now();
        Pass::submit(&self.device, None, |pass| (first..first + count).try_for_each(|at| (case.record)(pass, at)))?;
        self.device.wait()?;
        Ok(begin.elapsed().as_secs_f64())
    }
}
