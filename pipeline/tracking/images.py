"""Pictures of a step under the names by which MLflow shows them in a row; sent twice, they are there once."""

import base64
import io
import re
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.spool import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FOLDER = "images"
_NAME = re.compile(rf"{_FOLDER}/(.+)\+step\+(\d+)\+timestamp\+(\d+)\+")
_SMALL = 256  # pixels of the larger side of what is shown first, as MLflow's own client makes it


class Images:
    """The pictures of one MLflow run. The first of a step stays."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._times: dict[tuple[str, int], int] | None = None

    def send(self, event: Event) -> None:
        """Attach a picture, unless the step has another one."""
        from PIL import Image

        name, step, time = event["name"], event["step"], event["time"]
        if self._known().setdefault((name, step), time) != time:
            return
        # MLflow's client draws a fresh name at each try, and a picture whose answer was lost would be there twice.
        token = uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {step} {time}")
        stem = f"{name.replace('/', '~')}+step+{step}+timestamp+{time}+{token}"
        png = base64.b64decode(event["png"])
        with tempfile.TemporaryDirectory(prefix="marlin-mlflow-") as folder:
            whole, small = Path(folder) / f"{stem}.png", Path(folder) / f"{stem}+compressed.webp"
            whole.write_bytes(png)
            image = Image.open(io.BytesIO(png))
            image.thumbnail((_SMALL, _SMALL))
            image.save(small)
            for path in (whole, small):
                self._client.log_artifact(self._run_id, str(path), _FOLDER)
        self._client.set_tag(self._run_id, "mlflow.loggedImages", "True")

    def _known(self) -> dict[tuple[str, int], int]:
        if self._times is None:
            there = (_NAME.match(item.path) for item in self._client.list_artifacts(self._run_id, _FOLDER))
            self._times = {(found[1].replace("~", "/"), int(found[2])): int(found[3]) for found in there if found}
        return self._times
