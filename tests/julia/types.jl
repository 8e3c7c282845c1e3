using InteractiveUtils: code_llvm
using PhotoFlux: AdamStep, Buffers, Kernels

# JET sees a call that is looked up while it runs wherever it is, `@inferred` only a result of unknown type.
const JET_IS_HERE = Base.find_package("JET") !== nothing
JET_IS_HERE ? (@eval using JET: JET) : @info("JET is not installed: its checks did not run.")

@testset "the kernels' types are known" begin
    weight, buffers = ones(Float32, 64, 6), Buffers()
    x, dy, small, large = ones(Float32, 6, 2), ones(Float32, 64, 2), ones(Float32, 16, 2, 16, 2), ones(Float32, 32, 4, 16, 2)
    chosen = zeros(UInt8, size(small))
    conv = PhotoFlux.Convolution((3, 3), 16 => 16, Flux.relu)
    forward, backward = (copy(large), large, conv.weight, conv.bias, true, buffers, :conv),
        (copy(large), copy(conv.weight), copy(conv.bias), large, conv.weight, large, large, true, buffers, :conv)
    network, _ = random_network(Kernels, (16, 12), [(1, 3, 1, 16), (6, 5, 2, 24)])
    images, features = zeros(UInt8, 16, 12, 3, 2), zeros(Float32, 50, 2)
    step = @inferred AdamStep(Optimisers.setup(KerasAdam(), weight), L2(0.1))
    for (kernel, arguments, result) in (
        (Kernels.dense_product!, (copy(dy), weight, x, buffers, :layer), Matrix{Float32}),
        (Kernels.dense_gradients!, (copy(x), step, weight, x, dy, buffers, :layer), Float32),
        (conv, (large,), Array{Float32,4}),
        (Kernels.correlate!, forward, Array{Float32,4}),
        (Kernels.correlate_gradients!, backward, Nothing),
        (Kernels.correlate!, (copy(small), Base.tail(forward)..., chosen), Array{Float32,4}),
        (Kernels.correlate_gradients!, (backward[1:6]..., small, backward[8:end]..., chosen), Nothing),
        (Kernels.winograd!, forward, Array{Float32,4}),
        (Kernels.winograd_gradients!, backward, Nothing),
        (Kernels.bottleneck_features!, (features, network, images, buffers, :backbone), Matrix{Float32}),
        (Kernels.bottleneck_activations, (network, images, buffers, :backbone), Tuple{Vector{Array{Float32,4}},Matrix{Float32}}),
        (Kernels.pool!, (small, chosen, large), Tuple{Array{Float32,4},Array{UInt8,4}}),
        (Kernels.unpool!, (large, small, chosen), Array{Float32,4}),
    )
        @test (@inferred kernel(arguments...)) isa result
        if JET_IS_HERE
            @test JET.get_reports(JET.report_opt(kernel, typeof.(arguments); target_modules=(PhotoFlux, Kernels))) == []
        end
    end
end

# What is soon needed is asked for with every Julia: the call is in the code of the products, not only in a name.
@testset "products ask for memory ahead" begin
    types = (Kernels.Block, Kernels.Block, Kernels.Block, Int, Bool, Val{2}, Val{2}, Kernels.Ahead)
    @test occursin(r"call void @llvm\.prefetch\.p0", sprint(code_llvm, Kernels.product_block!, types))
end
