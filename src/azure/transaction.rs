//! Transactions on rows, and the parser of their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::error::{Error, NO_CODE};

/// The properties of a row besides its keys. A value has at most 32 Ki UTF-16 code units
/// (<https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model>).
pub(crate) type Columns = BTreeMap<String, String>;

/// The ETag of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) String);

/// The change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) row: String,
    pub(crate) change: Change,
}

/// How to change a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Inserts a row that must not exist.
    Insert(Columns),
    /// Sets columns of a row that must have this version. Other columns stay.
    Merge(Version, Columns),
    /// Replaces a row that must have this version. Other columns are removed.
    Replace(Version, Columns),
    /// Inserts a row, or replaces it in any version.
    Upsert(Columns),
    /// Inserts a row, or sets columns of an existing row in any version. Other columns stay.
    InsertOrMerge(Columns),
    /// Deletes a row in any version. The row must exist.
    Delete,
    /// Deletes a row that must have this version.
    DeleteVersion(Version),
}

/// A transaction failed, or its result is unknown. The service writes all operations of a transaction or none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Another process changed, inserted or deleted the row of the operation at this index. No operation was
    /// written.
    #[error("another process has changed a row")]
    Conflict(usize),
    /// The service rejects the transaction itself, for example because of its size. No operation was written.
    #[error("the storage account rejects the transaction")]
    Rejected(#[source] Error),
    /// The transaction may have been written, or the service may still write it.
    #[error("it is unknown whether the transaction was written")]
    Unknown {
        /// The error.
        #[source]
        cause: Error,
        /// The wait that the service asks for.
        retry_after: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "odata.error")]
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: String,
    message: Value,
}

/// The error code in the body of an answer.
pub(super) fn code_of(body: &str) -> String {
    let parsed = serde_json::from_str::<ErrorBody>(body).ok();
    let code = parsed.map(|body| body.error.code).filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    code.unwrap_or_else(|| NO_CODE.to_owned())
}

/// Parses the answer to a transaction: the new versions of all rows, or the operation that failed. The index
/// of the failed operation is the number before the first colon of the error message
/// (<https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions>).
pub(super) fn read_answer(text: &str, count: usize) -> Result<Vec<Version>, Failed> {
    let mut versions = Vec::new();
    for part in text.split("HTTP/1.1 ").skip(1) {
        let status: u16 = part.get(..3).and_then(|status| status.parse().ok()).unwrap_or_default();
        let (head, body) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
        if !(200..300).contains(&status) {
            let body =
                body.find('{').zip(body.rfind('}')).and_then(|(from, to)| body.get(from..=to)).unwrap_or_default();
            let code = code_of(body);
            let parsed = serde_json::from_str::<ErrorBody>(body).ok();
            let index = parsed.and_then(|body| body.error.message["value"].as_str()?.split(':').next()?.parse().ok());
            return Err(match (status, index) {
                (409 | 412, index) if !matches!(code.as_str(), "TableAlreadyExists" | "TableBeingDeleted") => {
                    Failed::Conflict(index.unwrap_or_default())
                }
                (404, index) if code != "TableNotFound" => Failed::Conflict(index.unwrap_or_default()),
                (400 | 413, _) => Failed::Rejected(Error::Answered { status, code }),
                (status, _) => unknown(Error::Answered { status, code }),
            });
        }
        // The answer to a deletion has no ETag; its version is empty.
        let version = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("etag").then(|| value.trim().to_owned())
        });
        versions.push(Version(version.unwrap_or_default()));
    }
    if versions.len() == count { Ok(versions) } else { Err(unknown(Error::Malformed)) }
}

pub(super) fn unknown(cause: Error) -> Failed {
    Failed::Unknown { cause, retry_after: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_all_versions_or_the_operation_that_failed() {
        let part = |head: &str, body: &str| {
            format!("--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {head}\r\n\r\n{body}\r\n")
        };
        let done = part("204 No Content\r\nETag: W/\"datetime'1'\"", "").repeat(2) + "--x--";
        let versions = read_answer(&done, 2).expect("both were written");
        assert_eq!(versions, vec![Version("W/\"datetime'1'\"".to_owned()); 2]);
        assert!(matches!(read_answer(&done, 3), Err(Failed::Unknown { .. })), "one version is missing");
        let failed = |head: &str, code: &str, index: &str| {
            let body =
                json!({"odata.error": {"code": code, "message": {"lang": "en-US", "value": format!("{index}The …")}}});
            read_answer(&part(head, &body.to_string()), 3).expect_err("it failed")
        };
        assert!(matches!(failed("412 Precondition Failed", "UpdateConditionNotSatisfied", "2:"), Failed::Conflict(2)));
        assert!(matches!(failed("409 Conflict", "EntityAlreadyExists", "1:"), Failed::Conflict(1)));
        assert!(matches!(failed("404 Not Found", "ResourceNotFound", ""), Failed::Conflict(0)));
        assert!(matches!(failed("404 Not Found", "TableNotFound", "0:"), Failed::Unknown { .. }));
        assert!(matches!(failed("409 Conflict", "TableBeingDeleted", "0:"), Failed::Unknown { .. }));
        assert!(matches!(failed("413 Too Large", "RequestBodyTooLarge", "0:"), Failed::Rejected(_)));
        assert!(matches!(failed("500 Internal", "InternalError", "0:"), Failed::Unknown { .. }));
        assert!(matches!(read_answer("", 1), Err(Failed::Unknown { .. })));
    }
}
