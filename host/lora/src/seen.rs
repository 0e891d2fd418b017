//! What a weights file was when it was hashed, so that it need not be hashed again while it is that.
//!
//! A file counts as unchanged if device, inode, length and both times are the same. Who writes to it
//! changes a time, if only to the next tick of the system's clock: so nothing is remembered of a file
//! that was written to shortly before it was read.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use request::{AdapterGeneration, Digest};

/// Longer than clocks of file systems stand still.
const SETTLED: Duration = Duration::from_secs(2);

/// Which file it is, and when it was last written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Nanoseconds since 1970 of the last write to its content.
    written: i128,
    /// The same of any change: a write whose time was put back shows here.
    changed: i128,
}

impl FileStamp {
    /// Of an open file.
    pub(crate) fn of(file: &File) -> std::io::Result<Self> {
        Ok(Self::new(&file.metadata()?))
    }

    fn new(meta: &Metadata) -> Self {
        let nanos =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            written: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether a write after `now` would show.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let since = i128::try_from(since).unwrap_or(i128::MAX);
        let margin = SETTLED.as_nanos().cast_signed();
        since - self.written.max(self.changed) > margin
    }
}

/// A file that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) file: FileStamp,
    /// Everything that its generation is made of but the content of its tensors.
    pub(crate) frame: Digest,
    pub(crate) generation: AdapterGeneration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_settles_in_time() {
        let check = |written_ms: u64, changed_ms: u64, now_ms: u64, expect: bool| {
            let nanos = |ms: u64| i128::from(ms) * 1_000_000;
            let (written, changed) = (nanos(written_ms), nanos(changed_ms));
            let stamp = FileStamp { device: 1, inode: 2, length: 3, written, changed };
            let now = UNIX_EPOCH + Duration::from_millis(now_ms);
            assert_eq!(stamp.is_settled(now), expect, "{written_ms} {changed_ms} {now_ms}");
        };
        check(1000, 1000, 3000, false);
        check(1000, 1000, 3001, true);
        // A time that was put back, and clocks that run ahead.
        check(0, 1000, 3000, false);
        check(5000, 1000, 4000, false);
    }

    #[test]
    fn every_write_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let stamp = || FileStamp::of(&File::open(&path).unwrap()).unwrap();
        let first = stamp();
        assert_eq!(stamp(), first);
        // Another file of the same length in its place, whatever its times.
        let other = dir.path().join("g");
        std::fs::write(&other, "two").unwrap();
        let file = File::options().write(true).open(&other).unwrap();
        file.set_modified(File::open(&path).unwrap().metadata().unwrap().modified().unwrap())
            .unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(stamp(), first);
        let second = stamp();
        std::fs::write(&path, "longer").unwrap();
        assert_ne!(stamp(), second);
    }
}
