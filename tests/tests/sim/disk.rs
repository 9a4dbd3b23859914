//! A model disk under redb: what was not synced may be lost, kept, or torn when it crashes; any operation can fail.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use larum_store::StorageBackend;

/// Writes are torn at multiples of this.
const SECTOR: usize = 512;

#[derive(Debug)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Default)]
struct State {
    /// What survives a crash for sure.
    durable: Vec<u8>,
    /// What reads see.
    current: Vec<u8>,
    unsynced: Vec<Op>,
    /// Operations until everything fails.
    fails_after: Option<u64>,
    /// Writes fail: the disk is full.
    full: bool,
    /// Handles from before the last crash belong to a dead process: they do nothing any more.
    boots: u64,
}

/// A disk as one process has it open.
#[derive(Clone, Debug, Default)]
pub struct ModelDisk {
    state: Arc<Mutex<State>>,
    boot: u64,
}

fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::SetLen(len) => bytes.resize(*len as usize, 0),
        Op::Write(at, data) => {
            let end = *at as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at as usize..end].copy_from_slice(data);
        }
    }
}

impl State {
    fn count(&mut self, boot: u64) -> Result<(), Error> {
        if boot != self.boots {
            return Err(Error::other("the process is dead"));
        }
        match &mut self.fails_after {
            Some(0) => Err(Error::other("the model disk fails")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl ModelDisk {
    /// Everything fails after so many more operations.
    pub fn fail_after(&self, ops: Option<u64>) {
        self.state.lock().unwrap().fails_after = ops;
    }

    /// Writes fail from now on, or no longer.
    pub fn set_full(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    /// Power loss: of what was not synced, some is there, some is not, some is torn. Gives the disk as the next process
    /// has it.
    pub fn crash(&self, rng: &mut Rng) -> ModelDisk {
        let mut guard = self.state.lock().unwrap();
        let state = &mut *guard;
        for op in state.unsynced.drain(..) {
            match (rng.u8(..3), op) {
                (0, _) => {}
                (1, Op::Write(at, mut data)) => {
                    let sectors = data.len().div_ceil(SECTOR);
                    data.truncate(rng.usize(..=sectors) * SECTOR);
                    apply(&mut state.durable, &Op::Write(at, data));
                }
                (_, op) => apply(&mut state.durable, &op),
            }
        }
        state.current = state.durable.clone();
        state.fails_after = None;
        state.full = false;
        state.boots += 1;
        ModelDisk { state: self.state.clone(), boot: state.boots }
    }
}

impl StorageBackend for ModelDisk {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.state.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        state.count(self.boot)?;
        let at = offset as usize;
        let from = state.current.get(at..at + out.len());
        out.copy_from_slice(from.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        state.count(self.boot)?;
        let op = Op::SetLen(len);
        apply(&mut state.current, &op);
        state.unsynced.push(op);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        state.count(self.boot)?;
        let state = &mut *state;
        for op in state.unsynced.drain(..) {
            apply(&mut state.durable, &op);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        state.count(self.boot)?;
        if state.full {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        let op = Op::Write(offset, data.to_vec());
        apply(&mut state.current, &op);
        state.unsynced.push(op);
        Ok(())
    }
}
