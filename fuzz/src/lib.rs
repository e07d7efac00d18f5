//! What the targets are run by: libFuzzer, or a driver of this package's own where it cannot be built.
//!
//! The driver knows nothing of what the code does with its inputs: it tries the seeds, and random changes of them. It
//! takes libFuzzer's `-max_total_time=SECONDS`, and folders of inputs.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[cfg(feature = "libfuzzer")]
pub use libfuzzer_sys::fuzz_target;

/// Defines the function that runs the target, as libFuzzer's macro of this name does.
#[cfg(not(feature = "libfuzzer"))]
#[macro_export]
macro_rules! fuzz_target {
    (|$input:ident: $type:ty| $body:block) => {
        fn main() -> std::process::ExitCode {
            $crate::run(|bytes| {
                let Some($input): Option<$type> = $crate::Input::of(bytes) else { return };
                $body
            })
        }
    };
}

/// What a target takes.
pub trait Input<'a>: Sized {
    /// The bytes as such; none if they are not.
    fn of(bytes: &'a [u8]) -> Option<Self>;
}

impl<'a> Input<'a> for &'a [u8] {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        Some(bytes)
    }
}

impl<'a> Input<'a> for &'a str {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        str::from_utf8(bytes).ok()
    }
}

/// Longest input, in bytes: libFuzzer's own.
const LENGTH_MAX: usize = 4096;

/// Bytes that mean something to parsers of addresses, queries and lists.
const SIGNS: &[u8] = b" %&=:;[]{}\"\\.,/0129aAf\0\n\xc3\xa9";

/// Random numbers, the same in each run: Marsaglia's xorshift.
struct Random(u64);

impl Random {
    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (end.max(1) as u64)) as usize
    }
}

/// Runs a target on the inputs of the folders that the arguments name, and for as long as they say on changes of them. A
/// target that panics ends the run, and the input is printed.
pub fn run(target: impl Fn(&[u8])) -> ExitCode {
    let (mut seconds, mut seeds) = (0, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.strip_prefix("-max_total_time=").map(str::parse) {
            Some(Ok(time)) => seconds = time,
            Some(Err(_)) => {
                eprintln!("invalid time \"{argument}\"");
                return ExitCode::FAILURE;
            }
            None if argument.starts_with('-') => {}
            None => match inputs(Path::new(&argument)) {
                Ok(found) => seeds.extend(found),
                Err(error) => {
                    eprintln!("{argument}: {error}");
                    return ExitCode::FAILURE;
                }
            },
        }
    }
    seeds.push(Vec::new());
    let (mut random, mut runs) = (Random(0x9e37_79b9_7f4a_7c15), 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while runs < seeds.len() || Instant::now() < end {
        let input = seeds.get(runs).cloned().unwrap_or_else(|| changed(&seeds, &mut random));
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            eprintln!("the input was: \"{}\"", input.escape_ascii());
            return ExitCode::FAILURE;
        }
        runs += 1;
    }
    println!("{runs} inputs");
    ExitCode::SUCCESS
}

/// The files of a folder, or one file.
fn inputs(path: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    if path.is_file() {
        return Ok(vec![fs::read(path)?]);
    }
    let mut paths: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// One of the seeds with some changes: bytes that are others, that go, that come, and parts of other seeds.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(4) {
            0 if at < input.len() => input[at] = random.below(256) as u8,
            1 => drop(input.drain(at..input.len().min(at + 1 + random.below(8)))),
            2 => input.insert(at, SIGNS[random.below(SIGNS.len())]),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let part = &other[from..other.len().min(from + 1 + random.below(32))];
                drop(input.splice(at..at, part.iter().copied()));
            }
        }
    }
    input.truncate(LENGTH_MAX);
    input
}
