//! Ranks that are threads of one process and pass each other tensors on the CPU. Nothing is copied to be
//! exchanged: each rank reads what the others hold.
//!
//! A rank waits by looking, for a while, and then sleeps.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Tensor;

use super::{Communicator, OP, check_widths};
use crate::KernelError;
use crate::ops::ELEMENTS_PER_TASK;
use crate::pool::for_chunks;
use crate::tensor::{HostFloats, exactly, from_host, host_floats};

/// How long a rank looks before it sleeps: ranks with equal work come at about the same time.
const SPIN: Duration = Duration::from_micros(100);
/// Looks between two looks at the clock.
const LOOKS: usize = 64;

/// Ranks that are threads.
#[derive(Debug)]
pub struct ThreadGroup {
    ranks: Vec<Seat>,
    aborted: AtomicBool,
    asleep: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

/// What one rank shows the others.
#[derive(Debug, Default)]
struct Seat {
    /// Exchanges it has come to.
    arrived: AtomicU64,
    /// What it brought to the last exchange and to the one before, by parity: a slow rank may still
    /// read the one before while a quick one brings the next.
    brought: [Mutex<Option<Tensor>>; 2],
}

/// One rank of a [`ThreadGroup`].
#[derive(Debug)]
struct Member {
    group: Arc<ThreadGroup>,
    rank: usize,
}

impl ThreadGroup {
    /// A group of `size` ranks; each end is for one thread.
    ///
    /// # Panics
    /// If `size` is zero.
    #[must_use]
    pub fn members(size: usize) -> Vec<Arc<dyn Communicator>> {
        assert!(size > 0, "a group has a rank");
        let group = Arc::new(Self {
            ranks: (0..size).map(|_| Seat::default()).collect(),
            aborted: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let member = |rank| -> Arc<dyn Communicator> {
            Arc::new(Member { group: Arc::clone(&group), rank })
        };
        (0..size).map(member).collect()
    }

    fn wake_all(&self) {
        if self.asleep.load(Ordering::SeqCst) > 0 {
            // Nothing is guarded but the moment between a look and a sleep.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    /// Whether all have come to exchange `round`, or somebody gave up.
    fn is_over(&self, round: u64) -> bool {
        let all = self.ranks.iter().all(|seat| seat.arrived.load(Ordering::SeqCst) >= round);
        all || self.aborted.load(Ordering::SeqCst)
    }

    fn wait(&self, round: u64) -> Result<(), KernelError> {
        let since = Instant::now();
        let mut looks = 0_usize;
        while !self.is_over(round) {
            looks += 1;
            spin_loop();
            if looks.is_multiple_of(LOOKS) && since.elapsed() > SPIN {
                self.asleep.fetch_add(1, Ordering::SeqCst);
                let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                // Who arrives is counted before it looks for sleepers, we are counted before we look at
                // who arrived: one of the two sees the other.
                while !self.is_over(round) {
                    guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                drop(guard);
                self.asleep.fetch_sub(1, Ordering::SeqCst);
            }
        }
        match self.aborted.load(Ordering::SeqCst) {
            true => Err(KernelError::Aborted { op: OP }),
            false => Ok(()),
        }
    }
}

impl Seat {
    fn brought(&self, round: u64) -> std::sync::MutexGuard<'_, Option<Tensor>> {
        self.brought[(round % 2) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// What every rank brings, in order of rank, once all have come.
    fn exchange(&self, x: Tensor) -> Result<Vec<Tensor>, KernelError> {
        let own = &self.group.ranks[self.rank];
        let round = own.arrived.load(Ordering::Relaxed) + 1;
        *own.brought(round) = Some(x);
        own.arrived.store(round, Ordering::SeqCst);
        self.group.wake_all();
        self.group.wait(round)?;
        // All have come here, so all have read what was brought to the exchange before.
        *own.brought(round - 1) = None;
        let read = |seat: &Seat| seat.brought(round).clone();
        let all: Option<Vec<Tensor>> = self.group.ranks.iter().map(read).collect();
        all.ok_or(KernelError::Aborted { op: OP })
    }
}

impl Communicator for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.group.ranks.len()
    }

    fn all_reduce(&self, x: Tensor) -> Result<Tensor, KernelError> {
        if self.size() == 1 {
            return Ok(x);
        }
        let parts = self.exchange(x)?;
        let shape = parts[0].shape().clone();
        for part in &parts {
            exactly(OP, "x", part, shape.dims())?;
        }
        let held = parts
            .iter()
            .map(|part| host_floats(OP, "x", part))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let held = held.iter().map(HostFloats::as_slice).collect::<Result<Vec<_>, _>>()?;
        let mut sum = held[0].to_vec();
        for_chunks(&mut sum, ELEMENTS_PER_TASK, |index, sum| {
            for part in &held[1..] {
                let part = &part[index * ELEMENTS_PER_TASK..][..sum.len()];
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
        });
        from_host(sum, shape)
    }

    fn all_gather(&self, x: Tensor, widths: &[usize]) -> Result<Tensor, KernelError> {
        check_widths((self.rank, self.size()), &x, widths)?;
        if self.size() == 1 {
            return Ok(x);
        }
        Ok(Tensor::cat(&self.exchange(x)?, 1)?)
    }

    fn gather(&self, x: Tensor, widths: &[usize]) -> Result<Option<Tensor>, KernelError> {
        check_widths((self.rank, self.size()), &x, widths)?;
        if self.size() == 1 {
            return Ok(Some(x));
        }
        let parts = self.exchange(x)?;
        match self.rank {
            0 => Ok(Some(Tensor::cat(&parts, 1)?)),
            _ => Ok(None),
        }
    }

    fn abort(&self) {
        self.group.aborted.store(true, Ordering::SeqCst);
        self.group.wake_all();
    }

    fn reset(&self) -> Result<(), KernelError> {
        let most = self.group.ranks.iter().map(|seat| seat.arrived.load(Ordering::SeqCst)).max();
        for seat in &self.group.ranks {
            // Ranks that gave up at different exchanges begin anew at the same one.
            seat.arrived.store(most.unwrap_or(0), Ordering::SeqCst);
            (*seat.brought(0), *seat.brought(1)) = (None, None);
        }
        self.group.aborted.store(false, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Random, assert_same_bits};

    /// Runs each rank on a thread of its own, in order of rank.
    fn on_ranks<R: Send>(size: usize, run: impl Fn(&dyn Communicator) -> R + Sync) -> Vec<R> {
        let members = ThreadGroup::members(size);
        std::thread::scope(|scope| {
            let run = &run;
            let spawn = |member: Arc<dyn Communicator>| scope.spawn(move || run(&*member));
            let threads: Vec<_> = members.into_iter().map(spawn).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_are_the_same_on_every_rank() {
        for size in [1, 2, 3, 4] {
            let of = |rank: usize, round: usize| {
                Random::new((rank * 100 + round) as u64 + 1).floats(round * 97)
            };
            let found = on_ranks(size, |member| {
                let sum = |round: usize| {
                    let x = from_host(of(member.rank(), round), (round, 97)).unwrap();
                    member.all_reduce(x).unwrap().flatten_all().unwrap().to_vec1().unwrap()
                };
                (0..200).map(|round| sum(round % 60)).collect::<Vec<Vec<f32>>>()
            });
            for (round, sum) in found[0].iter().enumerate() {
                let mut expected = of(0, round % 60);
                for rank in 1..size {
                    expected.iter_mut().zip(of(rank, round % 60)).for_each(|(sum, x)| *sum += x);
                }
                assert_same_bits(sum, &expected);
            }
            assert!(found.iter().all(|sums| *sums == found[0]));
        }
    }

    #[test]
    fn columns_lie_side_by_side() {
        let widths = [2, 1, 3];
        let found = on_ranks(3, |member| {
            let width = widths[member.rank()];
            let values: Vec<f32> =
                (0..2 * width).map(|v| (member.rank() * 10 + v) as f32).collect();
            let x = || from_host(values.clone(), (2, width)).unwrap();
            assert!(member.all_gather(x(), &widths[..2]).is_err(), "a width per rank");
            let all = member.all_gather(x(), &widths).unwrap().to_vec2::<f32>().unwrap();
            let first = member.gather(x(), &widths).unwrap();
            (all, first.map(|all| all.to_vec2::<f32>().unwrap()))
        });
        let expected = [[0.0, 1.0, 10.0, 20.0, 21.0, 22.0], [2.0, 3.0, 11.0, 23.0, 24.0, 25.0]];
        for (rank, (all, first)) in found.into_iter().enumerate() {
            assert_eq!(all, expected);
            assert_eq!(first, (rank == 0).then_some(all));
        }
    }

    #[test]
    fn nobody_waits_for_a_rank_that_gave_up() {
        let members = ThreadGroup::members(3);
        let x = |value: f32| from_host(vec![value], (1, 1)).unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = members[1..]
                .iter()
                .map(|member| scope.spawn(move || member.all_reduce(x(1.0))))
                .collect();
            members[0].abort();
            for thread in waiting {
                let found = thread.join().unwrap();
                assert!(matches!(found, Err(KernelError::Aborted { .. })));
            }
        });
        assert!(members[0].all_reduce(x(1.0)).is_err(), "until it is made good");
        members[0].reset().unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = members
                .iter()
                .map(|member| scope.spawn(move || member.all_reduce(x(2.0)).unwrap()))
                .collect();
            for thread in threads {
                let sum = thread.join().unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(sum, [[6.0]]);
            }
        });
    }
}
