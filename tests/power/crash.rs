//! Crashes of a script, and what every mix of memory and disk must come to.

use std::io::ErrorKind;

use onceonly::sim::{Fault, Image, Mix, SimDisk};

use crate::common::Rng;
use crate::common::ops::Level;
use crate::judge::{Crash, Judge};
use crate::script::{self, Script};

fn any_mix(rng: &mut Rng) -> Mix {
    let unit = [1, 8, 512, 4096][rng.below(4) as usize];
    let survive = match rng.below(4) {
        0 => 0,
        1 => 255,
        _ => rng.below(256) as u8,
    };
    Mix { seed: rng.next(), unit, survive }
}

/// Where a run gets its numbers from: how long it is, what it does, what the crash leaves.
pub(crate) struct Numbers {
    pub(crate) length: Rng,
    pub(crate) script: Rng,
    pub(crate) crash: Rng,
    /// To find it again.
    pub(crate) name: String,
}

impl Numbers {
    fn new(seed: u64) -> Self {
        let (length, script, crash) = (Rng::new(seed), Rng::new(seed), Rng::new(!seed));
        Numbers { length, script, crash, name: format!("run {seed}") }
    }
}

/// A disk; of four, one whose kernel holds up who changes a filter in a file.
fn disk(number: u64) -> SimDisk {
    let disk = SimDisk::new();
    if number.is_multiple_of(4) {
        disk.set_dirty_room(Some(0));
    }
    disk
}

/// Runs a script and makes an image at one of its calls.
fn interrupted(level: Level, mut rng: Rng, script: Rng) -> (Script, Image) {
    let length = 5 + rng.below(60) as usize;
    let disk = disk(length as u64);
    let mut script = Script::begin(level, script, disk.clone()).expect("a disk without faults");
    // About as many calls as such a script makes, so that most images are made at one of them.
    disk.snapshot_at(disk.calls() + 1 + rng.below(length as u64 * 6));
    script.run(length);
    let image = disk.take_image().unwrap_or_else(|| disk.snapshot());
    (script, image)
}

/// A kill and `mixes` power losses at one of the calls of a script.
pub(crate) fn at_any_call(level: Level, seed: u64, mixes: u64) {
    crash_at_any_call(level, Numbers::new(seed), mixes);
}

pub(crate) fn crash_at_any_call(level: Level, numbers: Numbers, mixes: u64) {
    let Numbers { length, script, crash: mut rng, name } = numbers;
    let (script, image) = interrupted(level, length, script);
    let fates = script.fates(image.acknowledged);
    let kept = script.kept(image.acknowledged);
    let mut judge = Judge {
        level,
        crash: Crash::Kill,
        distrusted: false,
        fates: &fates,
        kept: &kept,
        passed: script.passed(),
        what: format!("{level:?}, {name}, kill"),
    };
    judge.judge(&image.after_kill(), &judge.clock(&script.clock), &mut rng);
    judge.crash = Crash::PowerLoss;
    for _ in 0..mixes {
        let mix = any_mix(&mut rng);
        judge.what = format!("{level:?}, {name}, {mix:?}");
        let disk = image.after_power_loss(mix);
        judge.judge(&disk, &judge.clock(&script.clock), &mut rng);
    }
}

/// A second power loss, or a failing disk, while the store recovers from the first.
pub(crate) fn during_recovery(seed: u64, mixes: u64) {
    crash_during_recovery(Level::ALL[seed as usize % 3], Numbers::new(seed), mixes);
}

pub(crate) fn crash_during_recovery(level: Level, numbers: Numbers, mixes: u64) {
    let Numbers { length, script, crash: mut rng, name } = numbers;
    let (script, image) = interrupted(level, length, script);
    let fates = script.fates(image.acknowledged);
    let kept = script.kept(image.acknowledged);
    let mut judge = Judge {
        level,
        crash: Crash::PowerLoss,
        distrusted: false,
        fates: &fates,
        kept: &kept,
        passed: script.passed(),
        what: String::new(),
    };
    for _ in 0..mixes {
        let mix = any_mix(&mut rng);
        let mut disk = image.after_power_loss(mix);
        let call = 1 + rng.below(40);
        judge.what = format!("{level:?}, {name}, {mix:?}, again at call {call}");
        let clock = judge.clock(&script.clock);
        let fails = rng.below(2) == 0;
        if fails {
            let for_ever = rng.below(2) == 0;
            disk.set_fault(Some(Fault { at: call, for_ever, kind: ErrorKind::Other }));
        } else {
            disk.snapshot_at(call);
        }
        let opened = script::builder(level, &clock).open_simulated(&disk);
        if fails {
            disk.set_fault(None);
        } else {
            assert!(opened.is_ok(), "{}", judge.what);
        }
        let again = disk.take_image().unwrap_or_else(|| disk.snapshot());
        drop(opened);
        disk = again.after_power_loss(any_mix(&mut rng));
        judge.judge(&disk, &judge.clock(&clock), &mut rng);
    }
}

/// A call fails, once or for ever; then the disk works again.
pub(crate) fn after_a_failing_call(level: Level, seed: u64) {
    fail_a_call(level, Numbers::new(seed));
}

pub(crate) fn fail_a_call(level: Level, numbers: Numbers) {
    let Numbers { length: mut rng, script, name, .. } = numbers;
    let kind = [ErrorKind::Other, ErrorKind::StorageFull][rng.below(2) as usize];
    let fault = Fault { at: 1 + rng.below(250), for_ever: rng.below(2) == 0, kind };
    let disk = disk(fault.at);
    disk.set_fault(Some(fault));
    let Some(mut script) = Script::begin(level, script, disk.clone()) else { return };
    script.run(30);
    let what = format!("{level:?}, {name}, {fault:?}");
    judge_after(&script, &disk.snapshot(), script.is_distrusted(), &what, &mut rng);
    // The disk works again: so does the store, without being opened anew.
    disk.set_fault(None);
    script.run(20);
    let what = format!("{what}, and works again");
    judge_after(&script, &disk.snapshot(), script.is_distrusted(), &what, &mut rng);
}

/// The kernel cannot write back some of what is dirty. The store looks and goes on without it, or dies
/// before it has looked; then memory is short.
pub(crate) fn after_a_failed_write_back(level: Level, seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new();
    let mut script =
        Script::begin(level, Rng::new(seed), disk.clone()).expect("a disk without faults");
    script.run(5 + rng.below(40) as usize);
    let what = format!("{level:?}, run {seed}, failed write-back");
    disk.fail_write_back(rng.next());
    if rng.below(4) == 0 {
        // No new files: it stays as it is.
        disk.set_capacity(Some(0));
    }
    let looks = rng.below(3) > 0;
    if looks {
        script.settle();
    }
    script.run(rng.below(10) as usize);
    let distrusted = !looks || script.is_distrusted();
    if !distrusted {
        // Nothing that it relies on is lost by this.
        disk.drop_caches();
        script.run(10);
    }
    let image = disk.snapshot();
    let what = format!("{what}, looked: {looks}, distrusted: {distrusted}");
    judge_after(&script, &image, distrusted, &what, &mut rng);
    let short = image.after_kill();
    short.drop_caches();
    judge_after(&script, &short.snapshot(), distrusted, &format!("{what}, dropped"), &mut rng);
}

fn judge_after(script: &Script, image: &Image, distrusted: bool, what: &str, rng: &mut Rng) {
    let fates = script.fates(image.acknowledged);
    let kept = script.kept(image.acknowledged);
    let (level, passed) = (script.level, script.passed());
    for crash in [Crash::Kill, Crash::PowerLoss] {
        let what = format!("{what}, {crash:?}");
        let judge = Judge { level, crash, distrusted, fates: &fates, kept: &kept, passed, what };
        let disk = match crash {
            Crash::Kill => image.after_kill(),
            Crash::PowerLoss => image.after_power_loss(any_mix(rng)),
        };
        judge.judge(&disk, &judge.clock(&script.clock), rng);
    }
}
