using LinearAlgebra: BLAS
using PhotoFlux: Kernels, foreach_job, with_one_blas_thread, with_thread_team

@testset "BLAS keeps its threads" begin
    before = BLAS.get_num_threads()
    BLAS.set_num_threads(2)
    @test with_one_blas_thread(BLAS.get_num_threads) == 1
    @test BLAS.get_num_threads() == 2
    @test_throws "mine" with_one_blas_thread(() -> error("mine"))
    @test BLAS.get_num_threads() == 2
    BLAS.set_num_threads(before)
end

@testset "a team does every job once, and hands errors on" begin
    # Jobs of unlike length, many rounds: a job done twice or after `foreach_job` has returned would show in the counts.
    counts = zeros(Int, 50)
    with_thread_team() do
        for round in 1:500
            foreach_job(50) do job, worker
                @assert worker <= Threads.nthreads()
                counts[job] += 1
            end
            @assert all(==(round), counts)
        end
        @test_throws "job 3" foreach_job((job, worker) -> job == 3 && error("job 3"), 5)
        # After an error, and inside a job, it works on.
        inner = Threads.Atomic{Int}(0)
        foreach_job((job, worker) -> foreach_job((j, w) -> Threads.atomic_add!(inner, 1), 4), 3)
        @test inner[] == 12
    end
    @test all(==(500), counts)
    @test !haskey(task_local_storage(), :photoflux_team)
end

@testset "a helper's error is thrown once" begin
    Threads.nthreads() > 1 && with_thread_team() do
        team, met = task_local_storage(:photoflux_team), Threads.Atomic{Bool}(false)
        function work(worker)
            worker == 1 || (met[] = true; error("helper"))
            while !met[]
                Kernels.spin_pause(1)
            end
        end
        @test_throws "helper" Kernels.run_jobs!(team, work, 2)
        @test Kernels.run_jobs!(team, Returns(nothing), 2) === nothing
        # The caller's own error comes first, and the helper's is not left for the next list.
        met[] = false
        @test_throws "mine" Kernels.run_jobs!(team, worker -> (work(worker); error("mine")), 2)
        @test Kernels.run_jobs!(team, Returns(nothing), 2) === nothing
    end
end

@testset "after an error no job is begun" begin
    begun = Threads.Atomic{Int}(0)
    @test_throws "first" foreach_job(10^9) do job, worker
        Threads.atomic_add!(begun, 1)
        job == 1 && error("first")
    end
    @test begun[] < 10^9
end

@testset "a team is as large as its work" begin
    with_thread_team(; size=4) do
        team = task_local_storage(:photoflux_team)
        foreach_job(Returns(nothing), 1)
        @test length(team.helpers) == 0
        foreach_job(Returns(nothing), 3)
        @test length(team.helpers) == 2
        foreach_job(Returns(nothing), 64)
        @test length(team.helpers) == 3
        # Workspaces are made for this team, of more threads than Julia may have.
        @test Kernels.max_workers(64) == 4 && Kernels.max_workers(2) == 2
    end
end

# Counted, on however few threads this Julia has: who is not among the helpers has ended or does at its next look.
@testset "64 threads do not wait for 16 jobs" begin
    with_thread_team(; size=64) do
        team, done = task_local_storage(:photoflux_team), zeros(Int, 64)
        jobs(n) = foreach_job((job, _) -> (done[job] += 1), n)
        jobs(16)
        @test length(team.helpers) == 15
        jobs(64)
        first_, last_ = first(team.helpers), last(team.helpers)
        @test length(team.helpers) == 63
        # Layers of a step are of different widths: not each of them sends helpers away.
        foreach(_ -> (foreach(_ -> jobs(16), 1:(Kernels.NARROW_LISTS - 1)); jobs(64)), 1:3)
        @test length(team.helpers) == 63 && last(team.helpers) === last_
        foreach(jobs, [12; fill(16, Kernels.NARROW_LISTS - 1)])
        @test length(team.helpers) == 15 && first(team.helpers) === first_
        @test (@atomic first_.stays) && !(@atomic last_.stays)
        # They come back, and no job is done by two.
        foreach(_ -> (jobs(64); foreach(jobs, fill(2, Kernels.NARROW_LISTS))), 1:20)
        @test length(team.helpers) == 1
        lists = 1 + 1 + 3 * Kernels.NARROW_LISTS + Kernels.NARROW_LISTS + 20 * (1 + Kernels.NARROW_LISTS)
        @test done[1] == lists && done[64] == 1 + 3 + 20
    end
    # A step of a batch of 16 images of a dense network, whose widest list has 16 jobs or fewer.
    v = variant("dense_l2")
    model = small_model(v)
    with_thread_team(; size=64) do
        x, y = fill(1.0f0, 12, 10, 3, 16), zeros(Float32, 1, 16)
        PhotoFlux.train_step!(model, Optimisers.setup(KerasAdam(), model), PhotoFlux.loss_of(v.loss, 2), [], x, y, ones(Float32, 16))
        @test length(task_local_storage(:photoflux_team).helpers) < 16
    end
end

# The weights after some steps and features of a backbone, with teams of every thread that Julia was given, more than there are cores.
const STEPS = raw"""
using PhotoFlux
using PhotoFlux: Flux, Optimisers, Tail, Xoshiro, kernel_penalties, loss_of, targets, train_step!, with_thread_team
include(joinpath(pkgdir(PhotoFlux), "tests", "julia", "fixtures.jl"))
with_thread_team(; size=Threads.nthreads()) do
    for (name, input) in (("elastic_net", (40, 37, 3)), ("dropout", (180, 24, 1)), ("mlp", (32, 32, 3)))
        v = variant(name)
        model = build_model(v, input, 3; rng=Xoshiro(1))
        optimiser, buffers = Optimisers.setup(KerasAdam(), model), PhotoFlux.Buffers()
        x, y = 255 .* rand(Xoshiro(2), Float32, input..., 33), targets(rand(Xoshiro(3), Int32(0):Int32(2), 33), 3)
        for step in 1:3
            PhotoFlux.start_dropout!(model, 1, step)
            train_step!(model, optimiser, loss_of(v.loss, 3), kernel_penalties(layers(v, input, 3)), x, y, ones(Float32, 33), buffers)
        end
        weights = reduce(vcat, vec.(PhotoFlux.Flux.trainables(model)))
        println(name, " ", bytes2hex(PhotoFlux.sha256(reinterpret(UInt8, weights))))
    end
    # As many images as threads and more have jobs of their own, of fewer the layers are shared.
    K = PhotoFlux.Kernels
    network, _ = random_network(K, (90, 70), [(1, 3, 1, 16), (6, 3, 2, 24), (6, 5, 1, 24), (6, 5, 2, 56)])
    x = rand(Xoshiro(4), UInt8, 90, 70, 3, 40)
    for images in (1, 40)
        features = K.bottleneck_features!(zeros(Float32, network.top.outputs, images), network, x[:, :, :, 1:images], PhotoFlux.Buffers(), :a)
        println(images, " ", bytes2hex(PhotoFlux.sha256(reinterpret(UInt8, features[:, 1]))))
    end
    # A backbone's last block and last convolution, as fine-tuning trains them.
    conv(k, (inputs, outputs), σ; groups=1) = Flux.Conv(randn(Xoshiro(k), Float32, k, k, inputs ÷ groups, outputs) ./ 8,
        zeros(Float32, outputs), σ; groups, pad=k ÷ 2)
    block = Flux.Chain(; expand=conv(1, 20 => 140, Flux.relu6), depthwise=conv(5, 140 => 140, Flux.relu6; groups=140), project=conv(1, 140 => 20, identity))
    tail = Tail(Flux.Chain(; block1=Flux.SkipConnection(block, +), top=conv(1, 20 => 70, Flux.relu6), mean=Flux.GlobalMeanPool()), (9, 8, 20))
    model = Flux.Chain(; tail, flatten=Flux.flatten, output=Flux.Dense(randn(Xoshiro(5), Float32, 1, 70), zeros(Float32, 1)))
    optimiser, x, y = Optimisers.setup(KerasAdam(), model), randn(Xoshiro(6), Float32, 1, 1, 1440, 33), rand(Xoshiro(7), Float32[0, 1], 1, 33)
    for _ in 1:3
        train_step!(model, optimiser, loss_of("cross_entropy", 2), [], x, y, ones(Float32, 33))
    end
    println("tail ", bytes2hex(PhotoFlux.sha256(reinterpret(UInt8, reduce(vcat, vec.(Flux.trainables(model)))))))
end
"""

@testset "no number depends on the number of threads" begin
    path = join(LOAD_PATH, Sys.iswindows() ? ';' : ':')
    found = map((1, 2, 3, 8)) do threads
        command = `$(Base.julia_cmd()) --startup-file=no --threads=$threads --project=$(Base.active_project()) -e $STEPS`
        read(addenv(command, "JULIA_LOAD_PATH" => path), String)
    end
    @test count('\n', first(found)) == 6
    @test allequal(found)
    # Nor on the other images of a batch.
    @test allequal(last.(split.(split(first(found), '\n')[4:5])))
end

@testset "buffers are lent to one call at a time" begin
    Kernels.with_buffers() do first
        Kernels.with_buffers(second -> @test(second !== first))
        Kernels.buffer(first, :a, :b, 3)
    end
    kept = Kernels.with_buffers(identity)
    @test Kernels.with_buffers(identity) === kept
end
