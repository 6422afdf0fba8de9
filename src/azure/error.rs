//! Errors of the storage account.

use std::error::Error as _;

use azure_core::error::ErrorKind;
use reqwest::Response;

use super::credential::NoToken;

/// An operation on the storage account failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The service answered with an error.
    #[error("the storage account answered {status} {code}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// The header `x-ms-error-code`:
        /// <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>.
        code: String,
    },
    /// The service did not answer: no connection, a broken connection, or a timeout.
    #[error("the storage account does not answer")]
    Unreachable,
    /// The answer of the service cannot be parsed.
    #[error("the storage account's answer is malformed")]
    Malformed,
    /// A request could not be signed.
    #[error("a request cannot be signed with the account key")]
    Signing,
    /// There is no token of the app's identity, so no request was sent.
    #[error("there is no token of the app's identity for the storage account")]
    NoToken(#[source] NoToken),
}

/// The codes of an identity without the role that a request needs.
const MISSING_ROLE: [&str; 2] = ["AuthorizationPermissionMismatch", "InsufficientAccountPermissions"];

/// The answers of an account that refuses the app, and what the operator can do
/// (<https://learn.microsoft.com/troubleshoot/azure/azure-storage/blobs/authentication/storage-troubleshoot-403-errors>).
const REFUSALS: [(&[&str], &str); 4] = [
    (
        &MISSING_ROLE,
        "Storage refuses the app's identity. The operator should give it the roles Storage Blob Data Contributor, \
         Storage Blob Delegator, Storage Queue Data Contributor and Storage Table Data Contributor on the storage \
         account, and wait some minutes.",
    ),
    (
        &["KeyBasedAuthenticationNotPermitted"],
        "The storage account takes no keys. The operator should set AzureWebJobsStorage__accountName in place of the \
         key.",
    ),
    (
        &["AuthorizationFailure"],
        "Storage refuses the app. The operator should check the account's network rules, and with Azurite the key.",
    ),
    (
        &["AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"],
        "Storage refuses the app's key or token. The operator should check the account key, or the app's identity.",
    ),
];

/// In the place of a code that an answer does not have.
pub(super) const NO_CODE: &str = "without a code";

/// The error code in an answer's header.
pub(super) fn code_in_header(response: &Response) -> Option<String> {
    Some(response.headers().get("x-ms-error-code")?.to_str().ok()?.to_owned())
}

impl Error {
    /// The error in an answer whose status is no success.
    pub(crate) fn of_answer(response: &Response) -> Self {
        let code = code_in_header(response).unwrap_or_else(|| NO_CODE.to_owned());
        Self::Answered { status: response.status().as_u16(), code }
    }

    /// Whether the service answered that something does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered { status: 404, .. })
    }

    /// Whether the app's identity lacks the role that the request needs.
    pub(crate) fn is_missing_role(&self) -> bool {
        matches!(self, Self::Answered { status: 403, code } if MISSING_ROLE.contains(&code.as_str()))
    }

    /// A sentence for the operator, if the settings or the roles of the app are the cause.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Answered { status: 401 | 403, code } => {
                let known = REFUSALS.iter().find(|(codes, _)| codes.contains(&code.as_str()));
                known.map(|(_, advice)| *advice)
            }
            Self::Signing => Some("Storage is misconfigured. The operator should check the account key."),
            Self::NoToken(NoToken::Unassigned) => Some(
                "The app's identity is missing. The operator should assign a managed identity to the app, and set \
                 AzureWebJobsStorage__clientId to its client id if it is user-assigned.",
            ),
            Self::NoToken(_) => {
                Some("There is no token of the app's identity. If this stays so, the operator should restart the app.")
            }
            Self::Answered { .. } | Self::Unreachable | Self::Malformed => None,
        }
    }

    /// Whether the service answered with this error code.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Answered { code, .. } if code == wanted)
    }
}

impl From<azure_core::Error> for Error {
    fn from(error: azure_core::Error) -> Self {
        if let Some(answer) = error.as_http_error() {
            let code = answer.error_code().unwrap_or(NO_CODE).to_owned();
            return Self::Answered { status: u16::from(answer.status()), code };
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<NoToken>() {
                return Self::NoToken(error.clone());
            }
            cause = error.source();
        }
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code } => Self::Answered {
                status: u16::from(*status),
                code: error_code.clone().unwrap_or_else(|| NO_CODE.to_owned()),
            },
            ErrorKind::Credential => Self::Signing,
            ErrorKind::DataConversion => Self::Malformed,
            _ => Self::Unreachable,
        }
    }
}
