//! Who may send a request: the key, or the token of an identity.

use super::super::identity::{Identity, OBJECT_ID, OPENAI, Role};
use super::{Dialect, Options, Received, Refusal};

/// Refuses a request without a key; with an identity, one without its token.
pub(super) fn check(options: &Options, request: &Received) -> Result<(), Refusal> {
    let sent = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = sent("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let azure = options.dialect == Dialect::Azure;
    if azure && !request.uri.contains("api-version=") {
        return Err(Refusal::not_found());
    }
    if let Some(identity) = &options.identity {
        return check_token(identity, sent("api-key"), bearer);
    }
    let key = if azure { sent("api-key") } else { bearer };
    if key.is_none_or(|key| key.trim().is_empty()) {
        return Err(Refusal {
            status: 401,
            kind: "invalid_request_error",
            code: "invalid_api_key",
            param: None,
            message: "You didn't provide an API key.".to_owned(),
        });
    }
    Ok(())
}

fn check_token(identity: &Identity, key: Option<&str>, token: Option<&str>) -> Result<(), Refusal> {
    let refused = |status, code, message: String| Refusal { status, kind: "", code, param: None, message };
    if key.is_some() {
        let message = "Key based authentication is disabled for this resource.".to_owned();
        return Err(refused(403, "AuthenticationTypeDisabled", message));
    }
    if !token.is_some_and(|token| identity.accepts(token, OPENAI)) {
        let message = format!(
            "Unauthorized. Access token is missing, invalid, audience is incorrect ({OPENAI}), or have expired."
        );
        return Err(refused(401, "401", message));
    }
    if !identity.has(Role::OpenAiUser) {
        let message = format!(
            "The principal `{OBJECT_ID}` lacks the required data action \
             `Microsoft.CognitiveServices/accounts/OpenAI/images/generations/action`."
        );
        return Err(refused(401, "PermissionDenied", message));
    }
    Ok(())
}
