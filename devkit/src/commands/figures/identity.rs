//! The start of an app that opens its services with an identity.

use std::path::Path;
use std::time::Duration;

use devkit::stand_ins::identity::Identity;
use devkit::stand_ins::keyless::KeylessAccount;
use devkit::stand_ins::openai::{Dialect, OpenAi, Options};

use super::STARTS;
use crate::commands::handler::Handler;

/// The time in which the endpoint answers. A start that waits for a token takes longer.
const TOKEN_TAKES: Duration = Duration::from_millis(200);

/// The times until the first answers.
pub(super) async fn starts(program: &Path) -> anyhow::Result<Vec<Duration>> {
    let identity = Identity::start().await?;
    identity.delay(TOKEN_TAKES);
    let account = KeylessAccount::start(&identity).await?;
    let options = Options { dialect: Dialect::Azure, identity: Some(identity.clone()), ..Options::default() };
    let provider = OpenAi::start_with(options).await?;
    let spool = devkit::target_dir().join("devkit/figures-spool").display().to_string();
    let base_url = provider.base_url();
    let (variables, of_account) = (identity.variables(), account.settings());
    let mut settings = vec![("OPENAI_AUTH", "identity"), ("OPENAI_BASE_URL", &base_url), ("SPOOL_DIR", &spool)];
    settings.extend(variables.iter().chain(&of_account).map(|(name, value)| (*name, value.as_str())));
    let mut starts = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        starts.push(Handler::start(program, &settings, None).await?.1);
    }
    Ok(starts)
}
