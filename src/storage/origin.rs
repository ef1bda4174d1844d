//! Whether this is the process that opened a store. A child that was forked has copies of its handles,
//! but none of its threads, and shares its files and its lock.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::Region;

/// A mark that a forked child finds cleared: the kernel zeroes its page there. To look at it is one
/// load, so every call can; the process id, which costs a system call, is for where the kernel cannot
/// do that.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    mark: &'static AtomicU32,
    pid: u32,
}

/// The page of a process, and that of a child that was forked and opens stores itself.
struct Marks {
    page: Region,
    of_child: OnceLock<Box<Marks>>,
}

/// Where a page says that it is not cleared; marks are the numbers of their cells.
const ALIVE: usize = 0;

impl Marks {
    fn new() -> io::Result<Self> {
        let marks = Marks { page: Region::wiped_on_fork()?, of_child: OnceLock::new() };
        for (number, cell) in marks.cells().iter().enumerate() {
            cell.store(number.max(1) as u32, Relaxed);
        }
        Ok(marks)
    }

    fn cells(&self) -> &[AtomicU32] {
        self.page.cells()
    }

    /// The page of this process.
    fn here() -> io::Result<&'static Marks> {
        static FIRST: OnceLock<Box<Marks>> = OnceLock::new();
        let mut place = &FIRST;
        loop {
            let marks = match place.get() {
                Some(marks) => marks,
                None => {
                    let new = Box::new(Marks::new()?);
                    place.get_or_init(|| new)
                }
            };
            if marks.cells()[ALIVE].load(Relaxed) != 0 {
                return Ok(marks);
            }
            place = &marks.of_child;
        }
    }
}

impl Origin {
    /// The process that calls, with a mark from 1 to 1,023.
    pub(crate) fn here(mark: usize) -> io::Result<Self> {
        let mark = &Marks::here()?.cells()[mark];
        Ok(Origin { mark, pid: std::process::id() })
    }

    /// The mark; zero in a forked child.
    #[inline(always)]
    pub(crate) fn mark(&self) -> usize {
        self.mark.load(Relaxed) as usize
    }

    /// Whether this is a child that was forked since. For where a system call more does not matter.
    #[cold]
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.mark() == 0 || self.pid != std::process::id()
    }
}

// Miri makes no system calls.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn marks_are_their_numbers_where_they_were_set() {
        for mark in [1, 2, 1_023] {
            let origin = Origin::here(mark).unwrap();
            assert_eq!(origin.mark(), mark);
            assert!(!origin.is_elsewhere());
        }
    }
}
