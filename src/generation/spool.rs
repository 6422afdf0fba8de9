//! The spool: a folder where a paid image is safe before any step that can fail.
//!
//! An entry is one file, written beside the others under another name and then renamed, so that a
//! SIGKILL at any instant leaves nothing or a whole entry. It is not synced to the disk: what has to
//! be survived is the end of a process, which the host brings about without warning; an image
//! costs milliseconds less that way. Several processes may share the folder.

use std::collections::HashSet;
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

/// A gallery that cannot be reached for long is not waited for with ever more money.
const MAX_ENTRIES: usize = 500;
/// Temporary storage is 0.5 GB on the Consumption plan
/// (<https://learn.microsoft.com/azure/azure-functions/functions-scale#service-limits>).
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const ENDING: &str = "image";
const END_ENDING: &str = "end";
const UNFINISHED: &str = "unfinished";
/// Nobody writes for so long: what is older was being written when its process was killed.
const UNFINISHED_FOR: Duration = Duration::from_secs(60 * 60);

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    folder: Arc<Path>,
    /// What this process is still uploading, or has passed over: nothing to recover.
    in_hand: Arc<Mutex<HashSet<String>>>,
    /// Of these, what is in the gallery, and here until everybody was told of it.
    stored: Arc<Mutex<HashSet<String>>>,
}

/// What is kept with an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpooledImage {
    /// The record of its generation.
    pub(crate) address: Address,
    /// What the gallery keeps of it.
    #[serde(flatten)]
    pub(crate) details: Details,
}

/// The end of a generation, until its record says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SpooledEnd {
    pub(crate) address: Address,
    pub(crate) attempt: Attempt,
    pub(crate) outcome: Outcome,
}

/// The spool cannot take an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As much waits to be uploaded as may wait.
    #[error("the spool in SPOOL_DIR is full: images wait there to be uploaded")]
    Full,
    /// A file is not as this program writes them.
    #[error("a file in SPOOL_DIR is damaged or not ours")]
    Damaged,
    /// The folder cannot be used.
    #[error("the spool in SPOOL_DIR cannot be used")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Makes the folder, for this user alone.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.into(), in_hand: Arc::default(), stored: Arc::default() })
    }

    /// Whether one more image may come, asked before it is paid.
    pub(crate) async fn check_room(&self) -> Result<(), Error> {
        let (folder, stored) = (Arc::clone(&self.folder), locked(&self.stored).clone());
        let (entries, bytes) = blocking(move || {
            let mut sizes = (0, 0);
            for file in fs::read_dir(&folder)? {
                let file = file?;
                if file.path().file_stem().and_then(|id| id.to_str()).is_some_and(|id| stored.contains(id)) {
                    continue;
                }
                // A file may go while the folder is read.
                let length = file.metadata().map_or(0, |metadata| metadata.len());
                // A table that is away does not keep images from being drawn.
                let is_end = file.path().extension().is_some_and(|ending| ending == END_ENDING);
                sizes = (sizes.0 + usize::from(!is_end), sizes.1 + length);
            }
            Ok(sizes)
        })
        .await?;
        if entries < MAX_ENTRIES && bytes < MAX_BYTES { Ok(()) } else { Err(Error::Full) }
    }

    /// Keeps an image; once this returns, it is safe from the end of the process.
    pub(crate) async fn put(&self, image: &Image, entry: &SpooledImage) -> Result<(), Error> {
        let id = &entry.details.id;
        let mut header = serde_json::to_vec(entry).map_err(io::Error::from)?;
        header.push(b'\n');
        locked(&self.in_hand).insert(id.clone());
        let written = self.write(id, ENDING, header, image.bytes().clone()).await;
        if written.is_err() {
            self.leave(id);
        }
        written
    }

    /// Keeps the end of a generation that needs no image here, in place of one that is there, for
    /// whoever starts on this folder after this process.
    pub(crate) async fn put_end(&self, id: &str, end: &SpooledEnd) -> Result<(), Error> {
        let text = serde_json::to_vec(end).map_err(io::Error::from)?;
        locked(&self.in_hand).insert(id.to_owned());
        self.write(id, END_ENDING, text, Bytes::new()).await?;
        remove(self.path(id, ENDING)).await?;
        locked(&self.stored).remove(id);
        Ok(())
    }

    /// An end that was kept; `None` where there is none any more.
    pub(crate) async fn get_end(&self, id: &str) -> Result<Option<SpooledEnd>, Error> {
        let bytes = read(self.path(id, END_ENDING)).await?;
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|_| Error::Damaged)).transpose()
    }

    /// Forgets an end that its record says.
    pub(crate) async fn remove_end(&self, id: &str) -> Result<(), Error> {
        remove(self.path(id, END_ENDING)).await?;
        self.leave(id);
        Ok(())
    }

    async fn write(&self, id: &str, ending: &str, header: Vec<u8>, bytes: Bytes) -> Result<(), Error> {
        let (unfinished, whole) = (self.path(id, UNFINISHED), self.path(id, ending));
        let written = blocking(move || {
            let written = fs::File::create(&unfinished).and_then(|mut file| {
                io::Write::write_all(&mut file, &header)?;
                io::Write::write_all(&mut file, &bytes)?;
                fs::rename(&unfinished, &whole)
            });
            if written.is_err() {
                // Half an image must not take up the room that was too little for it.
                let _ = fs::remove_file(&unfinished);
            }
            written
        });
        Ok(written.await?)
    }

    /// An image is in the gallery, and waits for nothing here but for others to be told.
    pub(crate) fn stored(&self, id: &str) {
        locked(&self.stored).insert(id.to_owned());
    }

    /// Lets go of an image that this process no longer uploads itself: it is to be recovered.
    pub(crate) fn leave(&self, id: &str) {
        locked(&self.in_hand).remove(id);
        locked(&self.stored).remove(id);
    }

    /// Forgets an image that is in the gallery.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        remove(self.path(id, ENDING)).await?;
        self.leave(id);
        Ok(())
    }

    /// The ids of what was left behind, by this process or another; remains of what was never whole
    /// are removed.
    pub(crate) async fn left_behind(&self) -> Result<Vec<String>, Error> {
        self.ids(ENDING).await
    }

    /// The same for ends.
    pub(crate) async fn ends_left_behind(&self) -> Result<Vec<String>, Error> {
        self.ids(END_ENDING).await
    }

    async fn ids(&self, ending: &'static str) -> Result<Vec<String>, Error> {
        let folder = Arc::clone(&self.folder);
        let mut ids = blocking(move || {
            let mut ids = Vec::new();
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                let ends_with = |wanted: &str| path.extension().is_some_and(|ending| ending == wanted);
                let age = fs::metadata(&path).and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
                if ends_with(UNFINISHED) && age.is_some_and(|age| age > UNFINISHED_FOR) {
                    // Another process may have been faster.
                    let _ = fs::remove_file(&path);
                }
                if ends_with(ending) {
                    ids.extend(path.file_stem().and_then(|id| id.to_str()).map(str::to_owned));
                }
            }
            Ok(ids)
        })
        .await?;
        let in_hand = locked(&self.in_hand);
        ids.retain(|id| !in_hand.contains(id));
        Ok(ids)
    }

    /// Leaves an entry where it is and does not look at it again.
    pub(crate) fn pass_over(&self, id: &str) {
        locked(&self.in_hand).insert(id.to_owned());
    }

    /// An entry; `None` where there is none any more.
    pub(crate) async fn get(&self, id: &str) -> Result<Option<(Image, SpooledImage)>, Error> {
        let bytes = read(self.path(id, ENDING)).await?;
        bytes.map(|bytes| parse(bytes).ok_or(Error::Damaged)).transpose()
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{id}.{ending}"))
    }
}

/// A line of JSON, then the image.
fn parse(file: Bytes) -> Option<(Image, SpooledImage)> {
    let end = file.iter().position(|byte| *byte == b'\n')?;
    let entry = serde_json::from_slice(&file[..end]).ok()?;
    let image = Image::recognise(file.slice(end + 1..)).ok()?;
    Some((image, entry))
}

/// A file's bytes; `None` where there is none.
async fn read(path: PathBuf) -> io::Result<Option<Bytes>> {
    let read = blocking(move || match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    read.await
}

/// Removes a file, unless another process was faster.
async fn remove(path: PathBuf) -> io::Result<()> {
    let removed = blocking(move || match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    });
    removed.await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::Error::other("the task ended early")))
}
