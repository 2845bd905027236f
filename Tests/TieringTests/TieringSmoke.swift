// TieringSmoke: placeholder of the suite's first file, replaced by the first real suite.

import Testing
