//! The spool: a folder that keeps each paid image until it is uploaded and recorded.
//!
//! Each entry is one file. The file is written under a temporary name and then renamed, so a SIGKILL
//! leaves either a complete entry or none. Files are not synced to disk: the spool protects against the
//! end of the process, which the host may cause at any time, and a sync would cost milliseconds for each
//! image. Several processes may share the folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::record::{Address, Attempt};
use crate::gallery::Details;
use crate::image::Image;
use crate::lock::locked;

/// The limit bounds the money that is spent while the gallery is unreachable.
const MAX_ENTRIES: usize = 500;
/// Temporary storage is 0.5 GB on the Consumption plan
/// (<https://learn.microsoft.com/azure/azure-functions/functions-scale#service-limits>).
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const IMAGE_EXTENSION: &str = "image";
const OUTCOME_EXTENSION: &str = "end";
const UNFINISHED_EXTENSION: &str = "unfinished";
/// An unfinished file of this age is left over from a killed process, because no write takes this long.
const UNFINISHED_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The spool folder.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    folder: Arc<Path>,
    /// The ids that recovery skips: this process still works on them, or their files are damaged.
    claimed: Arc<Mutex<HashSet<String>>>,
    /// The ids whose image is in the gallery and whose outcome is not recorded yet. Such files do not
    /// count against the limits.
    stored: Arc<Mutex<HashSet<String>>>,
}

/// The metadata of an image in the spool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpooledImage {
    /// The address of the generation's record.
    pub(crate) address: Address,
    /// The metadata for the gallery.
    #[serde(flatten)]
    pub(crate) details: Details,
}

/// The outcome of a generation, kept until it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpooledEnd {
    pub(crate) address: Address,
    pub(crate) attempt: Attempt,
    pub(crate) outcome: Outcome,
}

/// The spool cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spool has reached its limits. Images in it wait for upload.
    #[error("the spool in SPOOL_DIR is full: its images wait for upload")]
    Full,
    /// A file does not have the format of a spool entry.
    #[error("a file in SPOOL_DIR is damaged or does not belong to this app")]
    Damaged,
    /// A file operation failed.
    #[error("the spool in SPOOL_DIR cannot be read or written")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Opens the folder, and creates it if it is missing. Only this user may access a new folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.into(), claimed: Arc::default(), stored: Arc::default() })
    }

    /// Checks that the spool has room for one more image. Called before the app pays for the image.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Io`].
    pub(crate) async fn check_room(&self) -> Result<(), Error> {
        let (folder, stored) = (Arc::clone(&self.folder), locked(&self.stored).clone());
        let (entries, bytes) = blocking(move || {
            let mut sizes = (0, 0);
            for file in fs::read_dir(&folder)? {
                let file = file?;
                if !is_ours(&file.path()) {
                    continue;
                }
                if file.path().file_stem().and_then(|id| id.to_str()).is_some_and(|id| stored.contains(id)) {
                    continue;
                }
                // Another process may remove the file at the same time.
                let length = file.metadata().map_or(0, |metadata| metadata.len());
                // Outcomes do not count as entries, so that an unreachable table does not stop drawing.
                let is_outcome = file.path().extension().is_some_and(|extension| extension == OUTCOME_EXTENSION);
                sizes = (sizes.0 + usize::from(!is_outcome), sizes.1 + length);
            }
            Ok(sizes)
        })
        .await?;
        if entries < MAX_ENTRIES && bytes < MAX_BYTES { Ok(()) } else { Err(Error::Full) }
    }

    /// Writes an image. From then on the image survives the end of the process.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn put(&self, image: &Image, entry: &SpooledImage) -> Result<(), Error> {
        let id = &entry.details.id;
        let mut header = serde_json::to_vec(entry).map_err(io::Error::from)?;
        header.push(b'\n');
        locked(&self.claimed).insert(id.clone());
        let written = self.write(id, IMAGE_EXTENSION, header, image.bytes().clone()).await;
        if written.is_err() {
            self.leave(id);
        }
        written
    }

    /// Writes the outcome of a generation and removes its image, which is not needed any more. If this
    /// process ends first, the next process that uses this folder records the outcome.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn put_end(&self, id: &str, end: &SpooledEnd) -> Result<(), Error> {
        let text = serde_json::to_vec(end).map_err(io::Error::from)?;
        locked(&self.claimed).insert(id.to_owned());
        self.write(id, OUTCOME_EXTENSION, text, Bytes::new()).await?;
        if matches!(end.outcome, Outcome::Stored { .. }) {
            remove(self.path(id, IMAGE_EXTENSION)).await?;
        }
        locked(&self.stored).remove(id);
        Ok(())
    }

    /// Reads an outcome; `None` if it was removed.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`].
    pub(crate) async fn get_end(&self, id: &str) -> Result<Option<SpooledEnd>, Error> {
        let bytes = read(self.path(id, OUTCOME_EXTENSION)).await?;
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|_| Error::Damaged)).transpose()
    }

    /// Removes an outcome that is recorded.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn remove_end(&self, id: &str) -> Result<(), Error> {
        remove(self.path(id, OUTCOME_EXTENSION)).await?;
        self.leave(id);
        Ok(())
    }

    async fn write(&self, id: &str, extension: &str, header: Vec<u8>, bytes: Bytes) -> Result<(), Error> {
        let (unfinished, whole) = (self.path(id, UNFINISHED_EXTENSION), self.path(id, extension));
        let written = blocking(move || {
            let written = fs::File::create(&unfinished).and_then(|mut file| {
                io::Write::write_all(&mut file, &header)?;
                io::Write::write_all(&mut file, &bytes)?;
                fs::rename(&unfinished, &whole)
            });
            if written.is_err() {
                // A partial file would take up space.
                let _ = fs::remove_file(&unfinished);
            }
            written
        });
        Ok(written.await?)
    }

    /// Marks an image as uploaded. The file stays until the outcome is recorded.
    pub(crate) fn stored(&self, id: &str) {
        locked(&self.stored).insert(id.to_owned());
    }

    /// Releases an entry, so that recovery handles it.
    pub(crate) fn leave(&self, id: &str) {
        locked(&self.claimed).remove(id);
        locked(&self.stored).remove(id);
    }

    /// Removes an image that is in the gallery.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        remove(self.path(id, IMAGE_EXTENSION)).await?;
        self.leave(id);
        Ok(())
    }

    /// The ids of the images to recover, from this process and from others. Old unfinished files are
    /// removed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn left_behind(&self) -> Result<Vec<String>, Error> {
        self.ids(IMAGE_EXTENSION).await
    }

    /// The ids of the outcomes to recover, as in [`Self::left_behind`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn ends_left_behind(&self) -> Result<Vec<String>, Error> {
        self.ids(OUTCOME_EXTENSION).await
    }

    async fn ids(&self, extension: &'static str) -> Result<Vec<String>, Error> {
        let folder = Arc::clone(&self.folder);
        let mut ids = blocking(move || {
            let mut ids = Vec::new();
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                let has_extension = |wanted: &str| path.extension().is_some_and(|found| found == wanted);
                let age = fs::metadata(&path).and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
                if has_extension(UNFINISHED_EXTENSION) && age.is_some_and(|age| age > UNFINISHED_MAX_AGE) {
                    // Another process may have removed the file.
                    let _ = fs::remove_file(&path);
                }
                if has_extension(extension) {
                    ids.extend(path.file_stem().and_then(|id| id.to_str()).map(str::to_owned));
                }
            }
            Ok(ids)
        })
        .await?;
        let claimed = locked(&self.claimed);
        ids.retain(|id| !claimed.contains(id));
        Ok(ids)
    }

    /// Excludes an entry from recovery in this process. The file stays.
    pub(crate) fn pass_over(&self, id: &str) {
        locked(&self.claimed).insert(id.to_owned());
    }

    /// Reads an image; `None` if it was removed.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`].
    pub(crate) async fn get(&self, id: &str) -> Result<Option<(Image, SpooledImage)>, Error> {
        let bytes = read(self.path(id, IMAGE_EXTENSION)).await?;
        bytes.map(|bytes| parse(bytes).ok_or(Error::Damaged)).transpose()
    }

    fn path(&self, id: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{id}.{extension}"))
    }
}

/// Whether this program writes files with such a name: an image's id, and one of three extensions.
fn is_ours(path: &Path) -> bool {
    let text = |part: Option<&OsStr>| part.and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let (id, extension) = (text(path.file_stem()), text(path.extension()));
    id.len() == 32
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && [IMAGE_EXTENSION, OUTCOME_EXTENSION, UNFINISHED_EXTENSION].contains(&extension.as_str())
}

/// Parses an image file: a line of JSON, then the bytes of the image.
fn parse(file: Bytes) -> Option<(Image, SpooledImage)> {
    let end = file.iter().position(|byte| *byte == b'\n')?;
    let entry = serde_json::from_slice(&file[..end]).ok()?;
    let image = Image::recognise(file.slice(end + 1..)).ok()?;
    Some((image, entry))
}

/// Reads a file; `None` if it does not exist.
async fn read(path: PathBuf) -> io::Result<Option<Bytes>> {
    let read = blocking(move || match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    read.await
}

/// Removes a file. A missing file is a success, because another process may have removed it.
async fn remove(path: PathBuf) -> io::Result<()> {
    let removed = blocking(move || match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    });
    removed.await
}

/// Runs file operations on a thread for blocking work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("a task with file operations panicked")))
}
