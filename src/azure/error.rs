//! Errors of the storage account.

use azure_core::error::ErrorKind;

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
}

impl Error {
    /// Whether the service answered that something does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Answered { status: 404, .. })
    }

    /// Whether the service answered with this error code.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Answered { code, .. } if code == wanted)
    }
}

impl From<azure_core::Error> for Error {
    fn from(error: azure_core::Error) -> Self {
        if let Some(answer) = error.as_http_error() {
            let code = answer.error_code().unwrap_or("without a code").to_owned();
            return Self::Answered { status: u16::from(answer.status()), code };
        }
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code } => Self::Answered {
                status: u16::from(*status),
                code: error_code.clone().unwrap_or_else(|| "without a code".to_owned()),
            },
            ErrorKind::Credential => Self::Signing,
            ErrorKind::DataConversion => Self::Malformed,
            _ => Self::Unreachable,
        }
    }
}
