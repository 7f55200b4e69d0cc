"""Services are found in what the command line names, or it is said why not."""

from pathlib import Path

import pytest

from modelport.errors import LoadFailed
from modelport.services.targets import import_services


def test_failing_import_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "failing_service.py"
    file.write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(LoadFailed) as failed:
        import_services(str(file))
    assert failed.value.text.startswith(
        "importing 'failing_service.py' failed in line 3: JSONDecodeError: Expecting property name"
    )
