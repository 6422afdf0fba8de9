//! The rows of deleted images. A process that moves a deleted image claims its row first, so that a deletion and a
//! restoration of the same image in two processes follow each other.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::id::ImageId;
use super::index::Index;
use super::row::NAME_COLUMN;
use crate::azure::{Change, Columns, Error, Failed, Operation, Purpose, Version};

/// Column: the end of the undo time.
const RESTORABLE_UNTIL: &str = "RestorableUntil";
/// Column: the [`Stage`].
const STAGE: &str = "Stage";
/// Column: the process that moves the image.
const CLAIMED_BY: &str = "ClaimedBy";
/// Column: the end of its claim. A process that dies ends no claim.
const CLAIMED_UNTIL: &str = "ClaimedUntil";
/// Between two writes of the row a process makes at most ten calls. A call may take 25 s, but ten calls in a row do not: the
/// first one that fails ends the work. The clocks of two processes differ by some seconds.
const CLAIM: Duration = Duration::from_secs(180);

/// What happens to a deleted image. Only the process with the claim on its row changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is being moved into the private container.
    Deleting,
    /// It is in the private container.
    Deleted,
    /// It is being moved back into the gallery.
    Restoring,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Restoring => "restoring",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Deleting, Self::Deleted, Self::Restoring].into_iter().find(|stage| stage.as_str() == text)
    }
}

/// A deleted image's row.
#[derive(Debug)]
pub(super) struct DeletedRow {
    pub(super) id: ImageId,
    pub(super) stage: Stage,
    pub(super) restorable_until: OffsetDateTime,
    columns: Columns,
    version: Version,
}

/// A row that this process has claimed.
#[derive(Debug)]
pub(super) struct ClaimedRow {
    pub(super) row: DeletedRow,
}

/// The result of claiming a row.
#[derive(Debug)]
pub(super) enum Claim {
    /// This process has the claim.
    Mine(ClaimedRow),
    /// Another process has it.
    OfAnother,
    /// There is no row: the image was restored or purged, or was never deleted.
    NoRow,
}

impl DeletedRow {
    fn read(id: &ImageId, (columns, version): (Columns, Version)) -> Option<Self> {
        let (stage, restorable_until) = stage_and_end(&columns)?;
        Some(Self { id: id.clone(), stage, restorable_until, columns, version })
    }

    /// The blob's name in the gallery.
    pub(super) fn name(&self) -> &str {
        self.columns.get(NAME_COLUMN).map(String::as_str).unwrap_or_default()
    }

    fn is_claimed_by_another(&self, process: &str, now: OffsetDateTime) -> bool {
        self.columns.get(CLAIMED_BY).is_some_and(|owner| owner != process)
            && time_in(&self.columns, CLAIMED_UNTIL).is_some_and(|until| now < until)
    }
}

impl ClaimedRow {
    /// The columns of the row in the index.
    pub(super) fn index_columns(&self) -> Columns {
        let mut columns = self.row.columns.clone();
        for name in [RESTORABLE_UNTIL, STAGE, CLAIMED_BY, CLAIMED_UNTIL] {
            columns.remove(name);
        }
        columns
    }
}

impl Index {
    /// The row of a deleted image; `None` if there is none.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(super) async fn deleted_row(&self, id: &ImageId) -> Result<Option<DeletedRow>, Error> {
        let found = self.deleted().get(id.as_str(), Purpose::Caller).await?;
        Ok(found.and_then(|found| DeletedRow::read(id, found)))
    }

    /// Inserts the row of an image that is to be deleted, claimed by this process; `None` if there is a row.
    ///
    /// # Errors
    /// The row may have been inserted.
    pub(super) async fn insert_deleted(
        &self,
        id: &ImageId,
        index_columns: &Columns,
        restorable_until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Option<ClaimedRow>, Error> {
        let mut columns = index_columns.clone();
        columns.insert(RESTORABLE_UNTIL.to_owned(), text_of(restorable_until));
        columns.insert(STAGE.to_owned(), Stage::Deleting.as_str().to_owned());
        columns.extend(self.claim_columns(now));
        let version = self.write_deleted(id, Change::Insert(columns.clone())).await?;
        let row = |version| DeletedRow { id: id.clone(), stage: Stage::Deleting, restorable_until, columns, version };
        Ok(version.map(|version| ClaimedRow { row: row(version) }))
    }

    /// Claims the row of a deleted image.
    ///
    /// # Errors
    /// The table cannot be read or written.
    pub(super) async fn claim_deleted(&self, id: &ImageId, now: OffsetDateTime) -> Result<Claim, Error> {
        let Some(mut row) = self.deleted_row(id).await? else { return Ok(Claim::NoRow) };
        if row.is_claimed_by_another(&self.process, now) {
            return Ok(Claim::OfAnother);
        }
        let claim = self.claim_columns(now);
        let merge = Change::Merge(row.version.clone(), claim.clone());
        let Some(version) = self.write_deleted(id, merge).await? else { return Ok(Claim::OfAnother) };
        row.columns.extend(claim);
        row.version = version;
        Ok(Claim::Mine(ClaimedRow { row }))
    }

    /// Notes a stage, and renews the claim.
    ///
    /// # Errors
    /// `Unreachable` if the claim was lost, and what the table answers.
    pub(super) async fn note_stage(
        &self,
        claimed: ClaimedRow,
        stage: Stage,
        restorable_until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<ClaimedRow, Error> {
        let mut row = claimed.row;
        row.columns.extend(self.claim_columns(now));
        self.replace_deleted(row, stage, restorable_until).await.map(|row| ClaimedRow { row })
    }

    /// Notes a stage, and ends the claim.
    ///
    /// # Errors
    /// As for [`Self::note_stage`].
    pub(super) async fn release_deleted(
        &self,
        claimed: ClaimedRow,
        stage: Stage,
        restorable_until: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut row = claimed.row;
        row.columns.remove(CLAIMED_BY);
        row.columns.remove(CLAIMED_UNTIL);
        self.replace_deleted(row, stage, restorable_until).await.map(drop)
    }

    async fn replace_deleted(
        &self,
        mut row: DeletedRow,
        stage: Stage,
        restorable_until: OffsetDateTime,
    ) -> Result<DeletedRow, Error> {
        (row.stage, row.restorable_until) = (stage, restorable_until);
        row.columns.insert(STAGE.to_owned(), stage.as_str().to_owned());
        row.columns.insert(RESTORABLE_UNTIL.to_owned(), text_of(restorable_until));
        let replace = Change::Replace(row.version, row.columns.clone());
        row.version = self.write_deleted(&row.id, replace).await?.ok_or(Error::Unreachable)?;
        Ok(row)
    }

    /// Removes the row of a deleted image.
    ///
    /// # Errors
    /// `Unreachable` if the claim was lost. The row may still be there.
    pub(super) async fn remove_deleted_row(&self, claimed: ClaimedRow) -> Result<(), Error> {
        let DeletedRow { id, version, .. } = claimed.row;
        let is_removed = self.deleted().change(id.as_str(), Change::DeleteVersion(version)).await?;
        if is_removed { Ok(()) } else { Err(Error::Unreachable) }
    }

    fn claim_columns(&self, now: OffsetDateTime) -> Columns {
        Columns::from([(CLAIMED_BY.to_owned(), self.process.clone()), (CLAIMED_UNTIL.to_owned(), text_of(now + CLAIM))])
    }

    /// Writes a row and returns its new version; `None` if another process was first.
    async fn write_deleted(&self, id: &ImageId, change: Change) -> Result<Option<Version>, Error> {
        let operation = Operation { row: id.as_str().to_owned(), change };
        match self.deleted().transact(&[operation]).await {
            Ok(versions) => versions.into_iter().next().map(Some).ok_or(Error::Malformed),
            Err(Failed::Conflict(_)) => Ok(None),
            Err(Failed::Rejected(cause) | Failed::Unknown { cause, .. }) => Err(cause),
        }
    }
}

/// The stage of a deleted image, and the end of its undo time.
pub(super) fn stage_and_end(columns: &Columns) -> Option<(Stage, OffsetDateTime)> {
    Some((Stage::parse(columns.get(STAGE)?)?, time_in(columns, RESTORABLE_UNTIL)?))
}

fn time_in(columns: &Columns, name: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(columns.get(name)?, &Rfc3339).ok()
}

fn text_of(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
