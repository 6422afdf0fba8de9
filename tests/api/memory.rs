//! What attackers can make large stays small in memory: expired rows, and listings. `cargo attack` does the same
//! with more of each.

use devkit::stand_ins::listing::Listing;
use devkit::{memory, table};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Setup, Visionary, azurite, eventually, status_line};

/// The resident memory of the first handler, in MB: now, and at most so far.
fn resident_and_peak(visionary: &Visionary) -> (u64, u64) {
    let pid = visionary.host.handler_pid(0).expect("the handler runs");
    let bytes = (memory::resident_bytes(pid), memory::peak_bytes(pid));
    (bytes.0.unwrap() / 1_000_000, bytes.1.unwrap() / 1_000_000)
}

/// If the handler reads the rows whole, it needs 120 MB for them; with more rows it would abort after each start.
#[tokio::test]
async fn expired_rows_are_deleted_in_little_memory() {
    let visionary = Setup { own_account: true, ..Setup::default() }.start().await;
    let storage = visionary.azurite.as_ref().unwrap().connection_string();
    let container = visionary.setting("IMAGE_CONTAINER");
    table::add_expired(&storage, &container, 3_000, 32_000).await.unwrap();
    let (idle, _) = resident_and_peak(&visionary);

    // A new row starts the deletion of old ones.
    assert_eq!(visionary.generate("a fox").await.status, 200);
    let look = async || table::has_expired(&storage, &container).await.unwrap();
    eventually("no expired row is left", look, |is_left| !is_left).await;

    let (_, peak) = resident_and_peak(&visionary);
    println!("idle {idle} MB, peak {peak} MB");
    assert!(peak - idle < 40, "idle {idle} MB, peak {peak} MB");
}

/// Without a bound, each of these clients holds a listing of 6 MB until it is disconnected.
#[tokio::test]
async fn listings_that_nobody_reads_take_little_memory() {
    let (storage, port) = (azurite().connection_string(), azurite().blob_port());
    let listing = Listing::before(port, 20_000).await.unwrap();
    let storage = storage.replace(&format!(":{port}/"), &format!(":{}/", listing.port()));
    let visionary = Setup::default().set("AzureWebJobsStorage", storage).start().await;
    let (idle, _) = resident_and_peak(&visionary);

    // One after the other, because requests at the same time share a listing.
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = visionary.connect().await;
        client.write_all(b"GET /api/getImages HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        clients.push((status_line(&mut client).await, client));
    }

    let answered = |wanted: &str| clients.iter().filter(|(status, _)| status == wanted).count();
    let (listed, busy) = (answered("HTTP/1.1 200"), answered("HTTP/1.1 503"));
    assert!(listed >= 4 && listed + busy == clients.len(), "{listed} × 200, {busy} × 503");
    let (_, peak) = resident_and_peak(&visionary);
    println!("idle {idle} MB, peak {peak} MB, {listed} × 200, {busy} × 503");
    assert!(peak - idle < 150, "idle {idle} MB, peak {peak} MB");
}
