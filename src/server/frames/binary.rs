//! Binary frames: pictures with a header.

use bytes::{BufMut as _, Bytes, BytesMut};
use paraflow_engine::ImageFormat;
use serde_json::json;

use crate::hub::Frame;

/// Binary event 1: format, picture.
pub(super) fn preview_image(image: &[u8], format: ImageFormat) -> Frame {
    let mut frame = BytesMut::with_capacity(image.len() + 8);
    frame.put_u32(1);
    frame.put_u32(match format {
        ImageFormat::Jpeg => 1,
        ImageFormat::Png => 2,
    });
    frame.put(image);
    Frame::Binary(frame.freeze())
}

/// Binary event 4: length of the JSON, JSON, picture.
pub(super) fn preview_with_metadata(job: &str, node: &str, image: &[u8], format: ImageFormat) -> Frame {
    let image_type = match format {
        ImageFormat::Jpeg => "image/jpeg",
        ImageFormat::Png => "image/png",
    };
    let metadata = json!({"node_id": node, "prompt_id": job, "display_node_id": node, "parent_node_id": null,
                          "real_node_id": node, "image_type": image_type});
    let metadata = metadata.to_string();
    let mut frame = BytesMut::with_capacity(image.len() + metadata.len() + 8);
    frame.put_u32(4);
    frame.put_u32(u32::try_from(metadata.len()).unwrap_or(u32::MAX));
    frame.put(metadata.as_bytes());
    frame.put(image);
    Frame::Binary(Bytes::from(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::status;
    use serde_json::Value as Json;

    #[test]
    fn frames_have_the_contracts_bytes() {
        let Frame::Binary(old) = preview_image(b"JPG", ImageFormat::Jpeg) else { panic!("binary") };
        assert_eq!(&old[..], b"\0\0\0\x01\0\0\0\x01JPG");
        let Frame::Binary(new) = preview_with_metadata("p", "3", b"PNG", ImageFormat::Png) else { panic!("binary") };
        let length = u32::from_be_bytes(new[4..8].try_into().unwrap()) as usize;
        assert_eq!(&new[..4], b"\0\0\0\x04");
        let metadata: Json = serde_json::from_slice(&new[8..8 + length]).unwrap();
        assert_eq!(metadata["image_type"], "image/png");
        assert_eq!(&new[8 + length..], b"PNG");
        assert_eq!(
            status(2, Some("abc")),
            Frame::Text(
                r#"{"type": "status", "data": {"status":{"exec_info":{"queue_remaining":2}},"sid":"abc"}}"#.into()
            )
        );
    }
}
