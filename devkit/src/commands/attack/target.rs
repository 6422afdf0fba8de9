//! The handler that is attacked, with its services.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::faults::Faults;
use devkit::stand_ins::listing::Listing;
use devkit::stand_ins::openai::OpenAi;

use super::LIMITS;
use crate::commands::handler::Handler;

/// What all attacks share.
pub(super) struct Stage {
    pub(super) handler: PathBuf,
    pub(super) azurite: Azurite,
}

/// A handler under [`LIMITS`], with a container and a provider of its own.
pub(super) struct Target {
    pub(super) handler: Handler,
    pub(super) openai: OpenAi,
    /// The line to the table, which counts the requests.
    pub(super) table: Faults,
    _listing: Option<Listing>,
}

impl Target {
    pub(super) async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let storage = stage.azurite.connection_string();
        Self::start_with(stage, &storage, &new_container(), None).await
    }

    /// A target whose gallery has `blobs` invented blobs.
    pub(super) async fn with_gallery(stage: &Stage, blobs: usize) -> anyhow::Result<Self> {
        let port = stage.azurite.blob_port();
        let listing = Listing::before(port, blobs).await?;
        let storage = moved(&stage.azurite.connection_string(), port, listing.port());
        Self::start_with(stage, &storage, &new_container(), Some(listing)).await
    }

    /// A target with this connection string and container.
    pub(super) async fn start_with(
        stage: &Stage,
        storage: &str,
        container: &str,
        listing: Option<Listing>,
    ) -> anyhow::Result<Self> {
        let openai = OpenAi::start().await?;
        let port = table_port(storage)?;
        let table = Faults::before(port).await?;
        let storage = moved(storage, port, table.port());
        let base_url = openai.base_url();
        let spool = devkit::target_dir().join("devkit/attack-spool").join(container).display().to_string();
        let settings = [
            ("AzureWebJobsStorage", storage.as_str()),
            ("IMAGE_CONTAINER", container),
            ("SPOOL_DIR", &spool),
            ("OPENAI_API_KEY", "cargo-attack"),
            ("OPENAI_BASE_URL", &base_url),
            ("QUOTA_USER_HEADER", "x-user"),
            // The well-behaved caller draws more images than people do.
            ("DAILY_IMAGE_QUOTA", "1000000"),
            ("DAILY_BUDGET_USD", "1000000"),
        ];
        let (handler, _) = Handler::start(&stage.handler, &settings, Some(LIMITS)).await?;
        Ok(Self { handler, openai, table, _listing: listing })
    }
}

/// A container that no other attack has used, in this run.
pub(super) fn new_container() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("attack-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The connection string with another port in place of this one.
fn moved(connection_string: &str, from: u16, to: u16) -> String {
    connection_string.replace(&format!(":{from}/"), &format!(":{to}/"))
}

fn table_port(connection_string: &str) -> anyhow::Result<u16> {
    let endpoint = connection_string.split(';').find_map(|part| part.strip_prefix("TableEndpoint="));
    let url = reqwest::Url::parse(endpoint.context("the connection string has no TableEndpoint")?)?;
    url.port().context("the TableEndpoint has no port")
}
