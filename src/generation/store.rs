//! The table of rows, as the committer uses it.

use crate::azure::{self, Columns, Failed, Operation, Purpose, Table, Version};

/// A table of rows. Production uses [`Table`]; tests use a table in memory.
pub(crate) trait Store: Send + Sync + 'static {
    /// Reads a row; `None` if it does not exist.
    fn get(&self, row: &str) -> impl Future<Output = Result<Option<(Columns, Version)>, azure::Error>> + Send;
    /// Reads a row to answer a caller. Such reads leave room for those of transactions.
    fn get_for_caller(
        &self,
        row: &str,
    ) -> impl Future<Output = Result<Option<(Columns, Version)>, azure::Error>> + Send {
        self.get(row)
    }

    /// Applies all operations in one transaction, or none of them. Each row may occur once.
    fn transact(&self, operations: &[Operation]) -> impl Future<Output = Result<Vec<Version>, Failed>> + Send;
}

impl Store for Table {
    async fn get(&self, row: &str) -> Result<Option<(Columns, Version)>, azure::Error> {
        Self::get(self, row, Purpose::Generation).await
    }

    async fn get_for_caller(&self, row: &str) -> Result<Option<(Columns, Version)>, azure::Error> {
        Self::get(self, row, Purpose::Caller).await
    }

    async fn transact(&self, operations: &[Operation]) -> Result<Vec<Version>, Failed> {
        Self::transact(self, operations).await
    }
}
