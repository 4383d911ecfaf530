/* Counts what a program sends with MPI, by the profiling interface: preload it (LD_PRELOAD) and read `message_counts`.

   The numbers, of this process so far:
   0 reductions (calls of MPI_Allreduce)         1 bytes given to them
   2 exchanges with neighbours (calls)           3 messages sent in them    4 bytes sent in them
   5 other messages sent, from point to point    6 bytes sent in them       7 calls of other collectives */

#include <mpi.h>
#include <stdlib.h>

long long message_counts[8];

static long long size_of(MPI_Datatype type) {
    int size = 0;
    PMPI_Type_size(type, &size);
    return size;
}

static void count_neighbours(const int counts[], MPI_Datatype type, MPI_Comm comm) {
    int in = 0, out = 0, weighted = 0;
    PMPI_Dist_graph_neighbors_count(comm, &in, &out, &weighted);
    message_counts[2]++;
    for (int i = 0; i < out; i++) {
        message_counts[3] += counts[i] > 0;
        message_counts[4] += counts[i] * size_of(type);
    }
}

static void count_send(int count, MPI_Datatype type) {
    message_counts[5]++;
    message_counts[6] += count * size_of(type);
}

int MPI_Allreduce(const void *s, void *r, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    message_counts[0]++;
    message_counts[1] += n * size_of(type);
    return PMPI_Allreduce(s, r, n, type, op, comm);
}

int MPI_Ineighbor_alltoallv(const void *s, const int sn[], const int sd[], MPI_Datatype st, void *r, const int rn[],
                            const int rd[], MPI_Datatype rt, MPI_Comm comm, MPI_Request *request) {
    count_neighbours(sn, st, comm);
    return PMPI_Ineighbor_alltoallv(s, sn, sd, st, r, rn, rd, rt, comm, request);
}

int MPI_Neighbor_alltoallv(const void *s, const int sn[], const int sd[], MPI_Datatype st, void *r, const int rn[],
                           const int rd[], MPI_Datatype rt, MPI_Comm comm) {
    count_neighbours(sn, st, comm);
    return PMPI_Neighbor_alltoallv(s, sn, sd, st, r, rn, rd, rt, comm);
}

int MPI_Isend(const void *b, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request) {
    count_send(n, type);
    return PMPI_Isend(b, n, type, to, tag, comm, request);
}

int MPI_Send(const void *b, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm) {
    count_send(n, type);
    return PMPI_Send(b, n, type, to, tag, comm);
}

int MPI_Bcast(void *b, int n, MPI_Datatype type, int root, MPI_Comm comm) {
    message_counts[7]++;
    return PMPI_Bcast(b, n, type, root, comm);
}

int MPI_Allgather(const void *s, int sn, MPI_Datatype st, void *r, int rn, MPI_Datatype rt, MPI_Comm comm) {
    message_counts[7]++;
    return PMPI_Allgather(s, sn, st, r, rn, rt, comm);
}

int MPI_Barrier(MPI_Comm comm) {
    message_counts[7]++;
    return PMPI_Barrier(comm);
}
