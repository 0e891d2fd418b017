//! Where segments live: a trait of five calls, so that tests can cut the power at any of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Named append-only files. `append` may be lost or torn until `sync` returns; `create` until
/// `sync` has returned for the new file.
pub trait Storage: Send {
    /// Names of all segments, in any order.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Whole content of a segment.
    ///
    /// # Errors
    /// Whatever the system says.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Appends to a segment, creating it if it is not there.
    ///
    /// # Errors
    /// Whatever the system says; the content is unknown afterwards.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable, the file's name included.
    ///
    /// # Errors
    /// Whatever the system says; the content is unknown afterwards.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Cuts a segment to `length` bytes, or removes it at 0, durably.
    ///
    /// # Errors
    /// Whatever the system says.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
}

/// Segments as files of a folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The file that is being appended to.
    open: Option<(String, File)>,
    /// Whether the folder has names that may not be durable. True at first: the process before this
    /// one may have died between creating a file and syncing the folder.
    names_unsynced: bool,
}

impl Folder {
    /// Segments in `path`, which must exist.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None, names_unsynced: true }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let path = self.path.join(name);
            self.names_unsynced |= !path.exists();
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            self.open = Some((name.to_owned(), file));
        }
        let (_, file) = self.open.as_mut().expect("opened above");
        Ok(file)
    }
}

impl Storage for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()?;
        if self.names_unsynced {
            File::open(&self.path)?.sync_all()?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.open = None;
        let path = self.path.join(name);
        if length == 0 {
            fs::remove_file(path)?;
        } else {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(length)?;
            file.sync_all()?;
        }
        File::open(&self.path)?.sync_all()
    }
}
