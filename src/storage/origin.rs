//! Whether this is the process that opened a store. A child that was forked has copies of its handles,
//! but none of its threads, and shares its files and its lock.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

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

/// Cells that belong to nobody, of pages that stay for ever.
static FREE: Mutex<Vec<&'static AtomicU32>> = Mutex::new(Vec::new());

/// A mark that changes: it has a cell of its own, which goes to the next when it is dropped.
pub(crate) struct Seat(Origin);

impl Seat {
    pub(crate) fn new(mark: usize) -> io::Result<Self> {
        // A thread that held the lock may not exist in a child.
        let free = FREE.try_lock().and_then(|mut free| free.pop());
        let cell = match free {
            Some(cell) => cell,
            None => Seat::more()?,
        };
        cell.store(mark as u32, Relaxed);
        Ok(Seat(Origin { mark: cell, pid: std::process::id() }))
    }

    fn more() -> io::Result<&'static AtomicU32> {
        let page: &'static Region = Box::leak(Box::new(Region::wiped_on_fork()?));
        let cells: &'static [AtomicU32] = page.cells();
        if let Some(mut free) = FREE.try_lock() {
            free.extend(&cells[1..]);
        }
        Ok(&cells[0])
    }

    pub(crate) fn origin(&self) -> Origin {
        self.0
    }

    /// Changes the mark. In a forked child it stays cleared.
    pub(crate) fn set(&self, mark: usize) {
        let _ = self.0.mark.fetch_update(Relaxed, Relaxed, |was| (was != 0).then_some(mark as u32));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if !self.0.is_elsewhere()
            && let Some(mut free) = FREE.try_lock()
        {
            free.push(self.0.mark);
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

    #[test]
    fn a_seat_has_a_mark_of_its_own() {
        let seats: Vec<Seat> = (0..1_500).map(|_| Seat::new(1).unwrap()).collect();
        let origins: Vec<Origin> = seats.iter().map(Seat::origin).collect();
        seats[7].set(4);
        let other = |at: usize| if at == 7 { 4 } else { 1 };
        assert!(origins.iter().enumerate().all(|(at, origin)| origin.mark() == other(at)));
    }
}
