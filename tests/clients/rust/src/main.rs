//! Drives the server at the address given with a Rust client of ComfyUI's API: sees that it gets its picture.

use rucomfyui::nodes::all::{LoadImage, SaveImage};
use rucomfyui::upload::UploadType;
use rucomfyui::{Client, WorkflowGraph};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// crates.io's rucomfyui: typed nodes, WebSocket, history, view, upload.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(std::env::args().nth(1).expect("the server's address"));
    let info = client.get_object_info().await?;
    assert!(info.contains_key("SaveImage"));

    let graph = WorkflowGraph::new();
    let loaded = graph.add(LoadImage::new("a.png"));
    let saved = graph.add(SaveImage::new(loaded.image, "rust"));
    let outputs = client.execute(&graph.into_workflow()).await?.outputs().await?;
    let picture = outputs[&saved].images[0].to_vec();
    assert!(picture.starts_with(PNG));

    let history = client.get_history(1).await?;
    let image =
        history.data.values().flat_map(|entry| entry.outputs.nodes.values()).find_map(|node| node.images.first());
    let image = image.expect("the history has the picture");
    assert_eq!(image.filename, "rust_00001_.png");
    assert_eq!(image.download(&client).await?.to_vec(), picture);
    let queue = client.get_queue().await?;
    assert!(queue.running.is_empty() && queue.pending.is_empty());
    client.upload_image("rust.png", picture, UploadType::Input, true).await?;
    println!("ok rust");
    Ok(())
}
