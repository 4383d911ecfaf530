"""The certificate of a law, computed again and compared with the stored one.

    python3 -m surrogates.certificate FILE.pt [--json FILE] [--renew]

The command computes the certificate of an artifact, prints it beside the stored one and ends with 1 if they differ;
`--renew` stores the new one, in the artifact and in the `.json` beside it. A shipped law may be given by its name. From
Python: `certify`. What each entry means: docs/guides/certificate.md.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from micro.threads import add_threads_option, limit_threads, small_batches, use_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded


from micro.data.cli import Parser
from micro.data.files import whole_file
from surrogates.artifact.certify import certify, disagreements, settings
from surrogates.artifact.export import replace_manifest, write_beside
from surrogates.artifact.load import load_law
from surrogates.artifact.schema import Certificate
from surrogates.artifact.shipped import locate

__all__ = ["certify", "disagreements", "main", "settings"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if the stored certificate differs and is not renewed, 2 for bad input."""
    parser = Parser(prog="surrogates.certificate", description="Compute the certificate of a law again.")
    parser.add_argument("law", type=Path, help="artifact or name of a shipped law; its certificate may be an older one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the new certificate to this file as well")
    parser.add_argument("--renew", action="store_true", help="store it in the artifact and in the .json beside it")
    parser.add_argument("--strain-max", type=float, metavar="E", help="largest strain (default: that of the manifest)")
    add_threads_option(parser)
    try:
        options = parser.parse_args(arguments)
        use_threads(options.threads)
        path = locate(options.law)
        law = load_law(path, certified=False)
        stored, manifest = law.stored["certificate"], law.manifest
        if options.strain_max is not None:
            limits = replace(manifest.range, strain_max=options.strain_max)
            manifest = replace(manifest, range=limits, certificate=Certificate())
        with small_batches():
            found = certify(law.module, **settings(manifest), against_itself=True)
        wrong = disagreements(stored, found)
        for name in sorted({*found, *stored}):
            mark = "  differs" if name in wrong else ""
            sys.stdout.write(f"{name:26s} {found.get(name)!s:24s} stored {stored.get(name)!s}{mark}\n")
        if options.renew:
            write_beside(path, replace_manifest(path, {**law.stored, "certificate": found}))
        if options.json is not None:
            with whole_file(options.json) as part:
                part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 1 if wrong and not options.renew else 0


if __name__ == "__main__":
    sys.exit(main())
