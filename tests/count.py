"""count.py FILE...: single tests in JUnit XML files of pytest or CTest, as `PASSED FAILED SKIPPED`.

A cmocka program is one test to CTest; under CMOCKA_MESSAGE_OUTPUT=TAP its output names each of its own.
"""

import re
import sys
import xml.etree.ElementTree as xml

passed = failed = skipped = 0
for path in sys.argv[1:]:
    for case in xml.parse(path).iter("testcase"):
        # "notrun": CTest found no program
        bad = any(case.find(tag) is not None for tag in ("failure", "error")) or case.get("status") in ("fail", "notrun")
        lines = re.findall(r"^(not ok|ok) \d+ (?:- )?(# SKIP)?", case.findtext("system-out") or "", re.M)
        inner_skipped = sum(bool(skip) for _, skip in lines)
        inner_bad = sum(verdict == "not ok" and not skip for verdict, skip in lines)
        if lines:
            failed += inner_bad + (1 if bad and not inner_bad else 0)  # a crash has no line of its own
            skipped += inner_skipped
            passed += len(lines) - inner_bad - inner_skipped
        elif bad:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") == "disabled":
            skipped += 1
        else:
            passed += 1
print(passed, failed, skipped)
