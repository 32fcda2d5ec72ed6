"""The picture of the page in the README: a comparison of two indexes, drawn anew by a browser.

    python scripts/screenshot.py --query 怎么退款 --output docs/images/page.png -- \\
        --index BatchNeg=quickstart/BatchNeg/index --index Baseline=quickstart/Baseline/index \\
        --params_path quickstart/BatchNeg/latest --params_path quickstart/Baseline/latest

What follows `--` are flags of serve.py. Needs Chromium and Playwright (requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--query", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    args, flags = parser.parse_known_args()
    command = [sys.executable, str(PROJECT / "serve.py"), *flags, "--port", "0"]
    with subprocess.Popen([part for part in command if part != "--"], stderr=subprocess.PIPE, text=True) as service:
        try:
            said = []
            for line in service.stderr:  # type: ignore[union-attr]
                said.append(line)
                if line.startswith("serving "):
                    break
            else:
                sys.exit("".join(said))
            names = [flag.partition("=")[0] for before, flag in zip(flags, flags[1:]) if before == "--index"]
            draw(re.search(r"http://\S+", said[-1])[0], names, args)  # type: ignore[index]
        finally:
            service.terminate()


def draw(url: str, names: list[str], args) -> None:
    from playwright.sync_api import sync_playwright

    asked = {"q": args.query, "index": names[0], **({"compare": names[1]} if len(names) > 1 else {})}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860}, locale="en", color_scheme="light")
        for _ in range(2):  # the times of a service that has just begun are not its usual ones
            page.goto(f"{url}/?{urlencode(asked)}", wait_until="networkidle")
        page.screenshot(path=args.output)
        browser.close()


if __name__ == "__main__":
    main()
