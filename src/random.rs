//! Randomness from the operating system, for secrets and identities.

use std::sync::atomic::{AtomicU64, Ordering};

/// Fills `out` with random bytes fit for a secret.
pub(crate) fn fill(out: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        done += random_bytes(&mut out[done..])?;
    }
    Ok(())
}

/// Fills `out` with bytes that differ from call to call even where randomness is missing; for
/// identities, not for secrets.
pub(crate) fn fill_or_counter(out: &mut [u8; 16]) {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    if fill(out).is_err() {
        out[..8].copy_from_slice(&COUNTER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    }
}

#[cfg(target_os = "linux")]
fn random_bytes(out: &mut [u8]) -> std::io::Result<usize> {
    Ok(rustix::rand::getrandom(out, rustix::rand::GetRandomFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn random_bytes(out: &mut [u8]) -> std::io::Result<usize> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read(out)
}
