from minialex_numba.runtime.environment import import_numba

import_numba()
