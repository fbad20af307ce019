"""An all-reduce for ``mpirun``: every rank adds up all ranks' numbers, and all ranks' ``NODE_RANK``.

Open MPI's library through ctypes: no compiler and no headers needed. Rank 0 prints both sums.
"""

ALL_REDUCE = """
import ctypes, os
mpi = ctypes.CDLL("libmpi.so.40", mode=ctypes.RTLD_GLOBAL)
world, number, add = (
    ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(mpi, name)))
    for name in ("ompi_mpi_comm_world", "ompi_mpi_int", "ompi_mpi_op_sum")
)
def total(value):
    out = ctypes.c_int()
    mpi.MPI_Allreduce(ctypes.byref(ctypes.c_int(value)), ctypes.byref(out), 1, number, add, world)
    return out.value
mpi.MPI_Init(None, None)
rank = ctypes.c_int()
mpi.MPI_Comm_rank(world, ctypes.byref(rank))
ranks, nodes = total(rank.value), total(int(os.environ["NODE_RANK"]))
if rank.value == 0:
    print(ranks, nodes)
mpi.MPI_Finalize()
"""
