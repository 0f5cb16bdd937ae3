"""Drives the server at the address given with two Python clients of ComfyUI's API: sees that each gets its picture."""

import sys
from pathlib import Path

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper
from comfy_toolkit import ComfyClient

PNG = b"\x89PNG\r\n\x1a\n"


def prompt(prefix):
    """Reads a picture and saves it under a name of its own, so that nothing comes from the cache."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Load"}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": prefix},
            "_meta": {"title": "Save"},
        },
    }


def simplified(address):
    """PyPI's comfy-api-simplified: WebSocket, history, view, upload."""
    api = ComfyApiWrapper(address)
    workflow = ComfyWorkflowWrapper(prompt("x"))
    workflow.set_node_param("Save", "filename_prefix", "simplified")
    images = api.queue_and_wait_images(workflow, "Save")
    assert list(images) == ["simplified_00001_.png"], list(images)
    assert images["simplified_00001_.png"].startswith(PNG)
    assert api.get_queue() == {"queue_running": [], "queue_pending": []}
    assert "SaveImage" in api.get_object_info()
    assert api.get_system_stats()["system"]["ram_total"] > 0
    assert api.get_embeddings() == []
    picture = Path("uploaded.png")
    picture.write_bytes(images["simplified_00001_.png"])
    assert api.upload_image(str(picture))["name"] == "uploaded.png"


def toolkit(address):
    """PyPI's comfy-toolkit: polling."""
    client = ComfyClient(address)
    assert client.is_online()
    image = client.wait_for_images(client.submit(prompt("toolkit")))[0]
    assert image["filename"] == "toolkit_00001_.png", image
    assert client.download(image).startswith(PNG)
    assert client.vram_stats()
    broken = prompt("broken")
    broken["1"]["inputs"]["image"] = "none.png"
    try:
        client.submit(broken)
    except Exception as error:
        assert "Invalid image file: none.png" in repr(error) + str(vars(error)), error
    else:
        raise AssertionError("a broken prompt was accepted")


for check in (simplified, toolkit):
    check(sys.argv[1])
    print(f"ok {check.__name__}")
