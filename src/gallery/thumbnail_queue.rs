//! The images of this process that wait for their thumbnails, in the order in which they came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::id::ImageId;
use crate::image::Image;
use crate::lock::locked;

/// The most images that wait. An entry without a file takes some 500 bytes.
const MAX_WAITING: usize = 1_000;
/// The files of the images that wait take at most this memory together, in KiB. Other images wait without their file,
/// which is downloaded in its turn.
const MAX_KIB: u32 = 32 * 1024;
/// The first image waits this long, in which its caller gets the answer. Starting a thread and decoding would delay it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A thumbnail waits at most this long for uploads to end, so that an app that always uploads makes thumbnails, too.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// An image that waits for its thumbnail.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: ImageId,
    /// The blob's name.
    pub(super) name: String,
    /// The file; `None` if it must be downloaded.
    pub(super) image: Option<Image>,
    _kib: Option<OwnedSemaphorePermit>,
}

/// The queue. Its one reader makes the thumbnails.
#[derive(Debug)]
pub(super) struct ThumbnailQueue {
    waiting: Mutex<VecDeque<Waiting>>,
    added: Notify,
    kib: Arc<Semaphore>,
    /// The number of [`Upload`]s.
    uploads: watch::Sender<usize>,
}

/// The queue has [`MAX_WAITING`] images.
#[derive(Debug)]
pub(super) struct Full;

/// An upload under way. No thumbnail begins meanwhile, because a caller waits for the upload.
#[derive(Debug)]
pub(super) struct Upload<'a>(&'a watch::Sender<usize>);

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|uploads| *uploads -= 1);
    }
}

impl ThumbnailQueue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            added: Notify::new(),
            kib: Arc::new(Semaphore::new(MAX_KIB as usize)),
            uploads: watch::Sender::default(),
        }
    }

    /// Notes an upload until the value is dropped.
    pub(super) fn upload(&self) -> Upload<'_> {
        self.uploads.send_modify(|uploads| *uploads += 1);
        Upload(&self.uploads)
    }

    /// Adds an image at the end.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn add(&self, id: ImageId, name: String, image: Option<&Image>) -> Result<(), Full> {
        let kib = image.and_then(|image| {
            let kib = u32::try_from(image.bytes().len() / 1024 + 1).ok()?;
            Arc::clone(&self.kib).try_acquire_many_owned(kib).ok()
        });
        // The image itself counts in the memory for answers of the provider, for which paid images wait.
        let image = image.filter(|_| kib.is_some()).map(Image::copied);
        let mut waiting = locked(&self.waiting);
        if waiting.len() >= MAX_WAITING {
            return Err(Full);
        }
        waiting.push_back(Waiting { id, name, image, _kib: kib });
        self.added.notify_one();
        Ok(())
    }

    /// Removes an image that is being deleted.
    pub(super) fn remove(&self, id: &ImageId) {
        locked(&self.waiting).retain(|waiting| waiting.id != *id);
    }

    /// Waits for the first image and takes it.
    pub(super) async fn next(&self) -> Waiting {
        let mut uploads = self.uploads.subscribe();
        loop {
            if locked(&self.waiting).is_empty() {
                self.added.notified().await;
                tokio::time::sleep(FIRST_PAUSE).await;
                continue;
            }
            let no_upload = uploads.wait_for(|uploads| *uploads == 0);
            let _ = tokio::time::timeout(LONGEST_PAUSE, no_upload).await;
            if let Some(first) = locked(&self.waiting).pop_front() {
                return first;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    fn id(number: usize) -> ImageId {
        ImageId::of(&format!("a fox_{}.png", 1_700_000_000_000 + number), None)
    }

    fn image(bytes: usize) -> Image {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        file.resize(bytes, 0);
        Image::recognise(file.into()).expect("an image")
    }

    #[tokio::test]
    async fn a_thousand_images_wait_in_their_order_and_some_of_them_with_their_file() {
        let queue = ThumbnailQueue::new();
        for number in 0..MAX_WAITING {
            queue.add(id(number), number.to_string(), Some(&image(1024 * 1024))).expect("there is a place");
        }
        assert!(queue.add(id(MAX_WAITING), String::new(), None).is_err(), "the queue is full");
        queue.remove(&id(1));

        let mut with_file = 0;
        for number in (0..MAX_WAITING).filter(|number| *number != 1) {
            let next = queue.next().await;
            assert_eq!(next.name, number.to_string());
            with_file += usize::from(next.image.is_some());
        }
        assert_eq!(with_file, 30, "32 MiB of files, of which the second was removed");
        assert!(queue.next().now_or_never().is_none());
        queue.add(id(0), String::new(), Some(&image(1024 * 1024))).expect("there is a place");
        assert!(queue.next().await.image.is_some(), "the memory is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_image_waits_until_its_caller_has_the_answer() {
        let queue = ThumbnailQueue::new();
        let began = Instant::now();
        let (_, ()) = tokio::join!(queue.next(), async {
            queue.add(id(0), String::new(), None).expect("there is a place");
        });
        assert_eq!(began.elapsed(), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thumbnail_waits_while_images_are_uploaded_but_not_for_ever() {
        let queue = ThumbnailQueue::new();
        queue.add(id(0), String::new(), None).expect("there is a place");
        queue.add(id(1), String::new(), None).expect("there is a place");
        let (one, other) = (queue.upload(), queue.upload());
        assert!(queue.next().now_or_never().is_none());
        drop(one);
        assert!(queue.next().now_or_never().is_none());
        drop(other);
        assert!(queue.next().now_or_never().is_some());

        let began = Instant::now();
        let _upload = queue.upload();
        queue.next().await;
        assert_eq!(began.elapsed(), LONGEST_PAUSE);
    }
}
