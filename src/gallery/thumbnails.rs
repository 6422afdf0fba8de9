//! The container of the thumbnails: `{image id}.jpg`, with the numbers of [`Thumbnail`] as metadata. The blob of a
//! transparent image is empty: its metadata counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Url};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, oneshot};

use super::links::{Links, WindowTokens};
use super::thumbnail::{self, Made, Size, Thumbnail};
use super::thumbnail_queue::ThumbnailQueue;
use crate::azure::{Container, Error, Http, Properties, Purpose};
use crate::image::Image;

/// All links of a window are the same. The thumbnails of a gallery are many, so browsers keep them for longer than
/// images.
const WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The window without an account key. A link lives for two windows, and less than the 7 days of a user delegation key.
const WINDOW_OF_IDENTITY: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// A larger blob is not downloaded.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Makes thumbnails and stores them.
#[derive(Debug, Clone)]
pub(crate) struct Thumbnails {
    container: Container,
    tokens: Arc<WindowTokens>,
    http: Http,
    /// The images that this process has stored.
    pub(super) queue: Arc<ThumbnailQueue>,
    /// A process makes one thumbnail at a time. Each takes a CPU core, and at most 64 MiB.
    one_at_a_time: Arc<Semaphore>,
}

/// Why an image has no thumbnail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotMade {
    /// No more images can wait in this process.
    #[error("too many images wait for their thumbnails")]
    Busy,
    /// The file is damaged, too large, or no image.
    #[error("the image cannot be decoded")]
    Undecodable,
    /// The system has no thread for it.
    #[error("no thread can be started")]
    NoThread,
    /// The image could not be read, or the thumbnail not be stored.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl Thumbnails {
    pub(super) fn new(container: Container, tokens: Arc<WindowTokens>, http: Http) -> Self {
        Self {
            container,
            tokens,
            http,
            queue: Arc::new(ThumbnailQueue::new()),
            one_at_a_time: Arc::new(Semaphore::new(1)),
        }
    }

    /// The container.
    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    /// Makes the thumbnail of an image on a thread of the lowest priority, so that requests get the CPU first. Nothing
    /// is stored.
    ///
    /// # Errors
    /// [`NotMade::Undecodable`].
    async fn make(&self, image: Image) -> Result<Made, NotMade> {
        let permit = Arc::clone(&self.one_at_a_time).acquire_owned().await.map_err(|_| NotMade::Undecodable)?;
        let (done, made) = oneshot::channel();
        let make = move || {
            // 19 is the lowest priority. Only on Linux does it count for this thread alone
            // (<https://man7.org/linux/man-pages/man2/setpriority.2.html>). If it is refused, the thumbnail is made all
            // the same.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::setpriority_process(None, 19);
            let made = thumbnail::make(&image);
            // The decoder goes on when nobody waits for it, so it holds the permit.
            drop(permit);
            let _ = done.send(made);
        };
        // A runtime's threads go on with other work, so the low priority needs a thread of its own. It takes some 50 µs.
        std::thread::Builder::new().name("thumbnail".to_owned()).spawn(make).map_err(|_| NotMade::NoThread)?;
        // A decoder that panics is a file that cannot be decoded.
        made.await.ok().flatten().ok_or(NotMade::Undecodable)
    }

    /// Stores a thumbnail. One that is there already stays, because its link never changes, and is returned.
    ///
    /// # Errors
    /// [`NotMade::Storage`].
    async fn store(&self, id: &str, made: Made) -> Result<Thumbnail, NotMade> {
        let Made { thumbnail, file } = made;
        match self.container.put_new(&blob_name(id), "image/jpeg", &file, &metadata(&thumbnail)).await {
            Ok(()) => Ok(thumbnail),
            Err(error) if error.is("BlobAlreadyExists") => Ok(self.find(id).await?.unwrap_or(thumbnail)),
            Err(error) => Err(error.into()),
        }
    }

    /// The stored thumbnail of an image.
    ///
    /// # Errors
    /// It is unknown whether there is one.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Thumbnail>, Error> {
        Ok(self.container.find(&blob_name(id), Purpose::Caller).await?.as_ref().and_then(parse))
    }

    /// The stored thumbnail of the image behind a link. A missing one is made and stored.
    ///
    /// # Errors
    /// See [`NotMade`].
    pub(super) async fn of_link(&self, id: &str, link: &str) -> Result<Thumbnail, NotMade> {
        if let Some(found) = self.find(id).await? {
            return Ok(found);
        }
        let image = Image::recognise(self.download(link).await?).map_err(|_| NotMade::Undecodable)?;
        self.of_image(id, image).await
    }

    /// Makes and stores the thumbnail of an image.
    ///
    /// # Errors
    /// See [`NotMade`].
    pub(super) async fn of_image(&self, id: &str, image: Image) -> Result<Thumbnail, NotMade> {
        self.store(id, self.make(image).await?).await
    }

    /// Downloads a blob of at most [`MAX_BYTES`]. The SDK's download is not used: its ranges ask for a checksum that
    /// Azurite does not have.
    async fn download(&self, link: &str) -> Result<Bytes, NotMade> {
        let _permit = self.http.permit(Purpose::Caller).await?;
        let link = Url::parse(link).map_err(|_| Error::Malformed)?;
        let mut response = self.http.request(Method::GET, &link).send().await.map_err(|_| Error::Unreachable)?;
        if !response.status().is_success() {
            return Err(Error::of_answer(&response).into());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Error::Unreachable)? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(NotMade::Undecodable);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    /// Links to thumbnails, by [`blob_name`]. They are the same for a week, or three days without an account key, and
    /// valid for at least as long.
    ///
    /// # Errors
    /// As [`Container::sign`].
    pub(super) async fn links(&self, now: OffsetDateTime) -> Result<Links, Error> {
        let window = if self.container.is_signed_by_identity() { WINDOW_OF_IDENTITY } else { WINDOW };
        Links::to_show(&self.tokens, &self.container, now, window).await
    }
}

/// The name of an image's thumbnail in its container.
pub(super) fn blob_name(id: &str) -> String {
    format!("{id}.jpg")
}

fn metadata(thumbnail: &Thumbnail) -> BTreeMap<&'static str, String> {
    let Thumbnail { image_size, size, placeholder } = thumbnail;
    let mut metadata = BTreeMap::from([
        ("width", image_size.width.to_string()),
        ("height", image_size.height.to_string()),
        ("placeholder", placeholder.clone()),
    ]);
    if let Some(size) = size {
        metadata.insert("thumbnail_width", size.width.to_string());
        metadata.insert("thumbnail_height", size.height.to_string());
    }
    metadata
}

/// Reads a thumbnail from the properties of its blob; `None` if another program has stored something else.
fn parse(properties: &Properties) -> Option<Thumbnail> {
    let number = |name: &str| properties.metadata.get(name)?.parse().ok();
    let size = |width: &str, height: &str| Some(Size { width: number(width)?, height: number(height)? });
    Some(Thumbnail {
        image_size: size("width", "height")?,
        size: size("thumbnail_width", "thumbnail_height"),
        placeholder: properties.metadata.get("placeholder")?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ::image::{DynamicImage, ImageFormat, RgbaImage};
    use devkit::stand_ins::azurite::{self, Azurite};
    use time::macros::datetime;

    use super::*;
    use crate::config::{Access, ServiceConfig, StorageConfig};

    fn thumbnails(port: u16) -> Thumbnails {
        let (storage, http) = (storage(port), Http::new(reqwest::Client::new()));
        let container = Container::new(&storage, &storage.thumbnail_container(), http.clone());
        Thumbnails::new(container, Arc::new(tokens(&storage)), http)
    }

    /// With an account key no token is stored.
    fn tokens(storage: &StorageConfig) -> WindowTokens {
        let StorageConfig { account, access, blob_endpoint, .. } = storage.clone();
        let config = ServiceConfig { account, access, endpoint: blob_endpoint };
        WindowTokens::new(&config, "images", Http::new(reqwest::Client::new()))
    }

    fn storage(port: u16) -> StorageConfig {
        StorageConfig {
            account: azurite::ACCOUNT.to_owned(),
            access: Access::Key(azurite::KEY.to_owned().into()),
            blob_endpoint: format!("http://127.0.0.1:{port}/{}", azurite::ACCOUNT).parse().expect("a URL"),
            container: "images".to_owned(),
        }
    }

    fn png(width: u32, height: u32, alpha: u8) -> Bytes {
        let mut file = Cursor::new(Vec::new());
        let image = DynamicImage::from(RgbaImage::from_pixel(width, height, ::image::Rgba([200, 30, 30, alpha])));
        image.write_to(&mut file, ImageFormat::Png).expect("it can be written");
        file.into_inner().into()
    }

    fn image(width: u32, height: u32, alpha: u8) -> Image {
        Image::recognise(png(width, height, alpha)).expect("an image")
    }

    #[tokio::test]
    async fn a_stored_thumbnail_is_found_again_and_its_link_opens_for_a_week_and_only_reads() {
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts");
        let http = reqwest::Client::new();
        let thumbnails = thumbnails(azurite.blob_port());
        assert!(thumbnails.find("fox").await.expect("no container yet").is_none());

        for (id, alpha) in [("fox", 255), ("glass", 80)] {
            let made = thumbnails.make(image(800, 400, alpha)).await.expect("a thumbnail");
            let stored = thumbnails.store(id, made).await.expect("it is stored");
            assert_eq!(stored.size, (alpha == 255).then_some(Size { width: 512, height: 256 }));
            assert_eq!(thumbnails.find(id).await.expect("storage answers"), Some(stored));
        }
        // Another process makes it again: the first one stays.
        let again = thumbnails.make(image(100, 100, 255)).await.expect("a thumbnail");
        let stored = thumbnails.store("fox", again).await.expect("it is there");
        assert_eq!(stored.image_size, Size { width: 800, height: 400 });

        #[expect(clippy::disallowed_methods, reason = "Azurite compares the token's times with the clock")]
        let now = OffsetDateTime::now_utc();
        let url = thumbnails.links(now).await.expect("a token").to(&blob_name("fox"));
        let opened = http.get(&url).send().await.expect("an answer");
        assert_eq!(opened.status(), 200);
        assert_eq!(opened.headers()["content-type"], "image/jpeg");
        assert_eq!(opened.headers()["cache-control"], "private, max-age=31536000, immutable");
        let small = ::image::load_from_memory(&opened.bytes().await.expect("a body")).expect("a JPEG");
        assert_eq!((small.width(), small.height()), (512, 256));
        let write = http.put(&url).header("x-ms-blob-type", "BlockBlob").body("x").send().await.expect("an answer");
        assert_eq!(write.status(), 403);
        let past = thumbnails.links(now - time::Duration::days(15)).await.expect("a token").to(&blob_name("fox"));
        assert_eq!(http.get(past).send().await.expect("an answer").status(), 403);
    }

    #[tokio::test]
    async fn the_links_of_a_week_are_the_same_and_valid_for_at_least_a_week_more() {
        let thumbnails = thumbnails(1);
        // Windows begin at 00:00 UTC on Thursdays, because 1970 did.
        let begin = datetime!(2026-11-19 00:00 UTC);
        let link = async |at: OffsetDateTime| thumbnails.links(at).await.expect("a token").to("fox.jpg");
        let first = link(begin).await;
        assert_eq!(first, link(begin + time::Duration::days(7) - Duration::from_millis(1)).await);
        assert_ne!(first, link(begin + time::Duration::days(7)).await);
        assert!(first.contains("/images-thumbnails/fox.jpg?sv="), "{first}");
        assert!(first.contains("&sp=r&sr=c&se=2026-12-03T00%3A00%3A01Z"), "{first}");
    }

    #[tokio::test]
    async fn an_image_behind_a_link_gets_a_thumbnail_and_a_file_that_is_no_image_does_not() {
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts");
        let storage = storage(azurite.blob_port());
        let thumbnails = thumbnails(azurite.blob_port());
        let images = Container::new(&storage, &storage.container, Http::new(reqwest::Client::new()));
        let put = async |name: &str, bytes: Bytes| {
            images.put_new(name, "image/png", &bytes, &BTreeMap::new()).await.expect("it is stored");
        };
        let whole = png(40, 30, 255);
        put("fox?_1.png", whole.clone()).await;
        put("empty_2.png", Bytes::new()).await;
        put("text_3.png", "a text".into()).await;
        put("half_4.png", whole.slice(..whole.len() / 2)).await;
        put("huge_5.png", [whole, vec![0; MAX_BYTES].into()].concat().into()).await;
        #[expect(clippy::disallowed_methods, reason = "Azurite compares the token's times with the clock")]
        let now = OffsetDateTime::now_utc();
        let links = Links::to_show(&tokens(&storage), &images, now, WINDOW).await.expect("a token");

        let made = thumbnails.of_link("1", &links.to("fox?_1.png")).await.expect("a thumbnail");

        assert_eq!(made.image_size, Size { width: 40, height: 30 });
        assert_eq!(thumbnails.find("1").await.expect("storage answers"), Some(made));
        for name in ["empty_2.png", "text_3.png", "half_4.png", "huge_5.png"] {
            let refused = thumbnails.of_link(name, &links.to(name)).await;
            assert!(matches!(refused, Err(NotMade::Undecodable)), "{name}: {refused:?}");
        }
        let missing = thumbnails.of_link("6", &links.to("missing_6.png")).await;
        assert!(matches!(missing, Err(NotMade::Storage(Error::Answered { status: 404, .. }))), "{missing:?}");
    }
}
