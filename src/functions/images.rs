//! One image: `GET /api/images/{id}` describes it, `DELETE` deletes it, `POST …/restore` restores it.
//!
//! The answer of generateImage has a token, derived from the image's id, with which the image's creator deletes it.
//! The operator may delete any image, at `/api/manage/images/{id}`, with a function key.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;

use super::answers;
use crate::app::App;
use crate::error::{Code, Problem};
use crate::gallery::{ImageId, NotMoved};

/// The header with the token of generateImage's answer.
pub(super) const DELETE_TOKEN: HeaderName = HeaderName::from_static("x-delete-token");

/// The id in the path. One that is not UTF-8 once decoded is a rejection.
type Id = Result<Path<String>, PathRejection>;

pub(super) async fn look(State(app): State<Arc<App>>, id: Id) -> Result<Response, Problem> {
    let details = app.gallery.details(&parse(id)?, (app.clock)()).await?.ok_or_else(unknown)?;
    Ok(answers::json(&details))
}

pub(super) async fn delete(State(app): State<Arc<App>>, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let id = parse(id)?;
    check_token(&app, &headers, &id)?;
    delete_any(&app, &id).await
}

pub(super) async fn restore(State(app): State<Arc<App>>, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let id = parse(id)?;
    check_token(&app, &headers, &id)?;
    restore_any(&app, &id).await
}

/// For the operator: the host has checked the function key.
pub(super) async fn delete_as_operator(State(app): State<Arc<App>>, id: Id) -> Result<Response, Problem> {
    delete_any(&app, &parse(id)?).await
}

/// For the operator: the host has checked the function key.
pub(super) async fn restore_as_operator(State(app): State<Arc<App>>, id: Id) -> Result<Response, Problem> {
    restore_any(&app, &parse(id)?).await
}

async fn delete_any(app: &App, id: &ImageId) -> Result<Response, Problem> {
    let sentence = "Another image with this name was deleted before and can still be restored. Delete this one after its undo time.";
    let deleted = app.gallery.delete(id, &*app.clock).await.map_err(|error| not_moved(error, sentence))?;
    Ok(answers::json(&deleted.ok_or_else(unknown)?))
}

async fn restore_any(app: &App, id: &ImageId) -> Result<Response, Problem> {
    let sentence = "Another image has this image's name now. Delete that one first.";
    let restored = app.gallery.restore(id, &*app.clock).await.map_err(|error| not_moved(error, sentence))?;
    restored.ok_or_else(|| {
        Problem::new(Code::NotFound, "No deleted image has this id, or it can no longer be restored.")
    })?;
    let details = app.gallery.details(id, (app.clock)()).await?.ok_or_else(unknown)?;
    Ok(answers::json(&details))
}

/// `name_taken` is the sentence if another image has the name.
fn not_moved(error: NotMoved, name_taken: &str) -> Problem {
    match error {
        NotMoved::NameTaken => Problem::new(Code::NameTaken, name_taken),
        NotMoved::Storage(error) => error.into(),
    }
}

fn check_token(app: &App, headers: &HeaderMap, id: &ImageId) -> Result<(), Problem> {
    let given = headers.get(DELETE_TOKEN).map(|token| token.as_bytes()).unwrap_or_default();
    if app.gallery.is_delete_token(id, given) {
        return Ok(());
    }
    Err(Problem::new(
        Code::DeleteTokenRefused,
        "Only the creator of this image may delete it: send the deleteToken of generateImage's answer in the header X-Delete-Token.",
    ))
}

fn parse(id: Id) -> Result<ImageId, Problem> {
    let Path(id) = id.map_err(|_| unknown())?;
    ImageId::parse(&id).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "No image has this id.")
}
