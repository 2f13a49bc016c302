"""count.py FILE...: single tests in JUnit XML files of pytest or CTest, as `PASSED FAILED SKIPPED`.

A cmocka program is one test to CTest; under CMOCKA_MESSAGE_OUTPUT=TAP its output names each of its own.
"""

import re
import sys
import xml.etree.ElementTree as xml

passed = failed = skipped = 0
for path in sys.argv[1:]:
    for case in xml.parse(path).iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail"
        lines = re.findall(r"^(not ok|ok) \d+(.*)$", case.findtext("system-out") or "", re.M)
        inner_bad = sum(verdict == "not ok" for verdict, _ in lines)
        inner_skipped = sum(verdict == "ok" and "# SKIP" in rest for verdict, rest in lines)
        if lines:
            failed += inner_bad + (1 if bad and not inner_bad else 0)  # a crash has no line of its own
            skipped += inner_skipped
            passed += len(lines) - inner_bad - inner_skipped
        elif bad:
            failed += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
print(passed, failed, skipped)
