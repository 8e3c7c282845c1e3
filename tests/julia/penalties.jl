using PhotoFlux: Penalty, Proximal, add_gradient!, coefficients, kernel_penalties, penalty, penalty_value, shrunk
using PhotoFlux.Flux: Zygote

const w = randn(Xoshiro(1), Float32, 3, 3, 4, 5)

# The sums of 180 terms in two orders: at most 180·eps(Float32) ≈ 2e-5 apart, relatively.
@testset "values are Keras' sums" begin
    @test NoPenalty()(w) === 0.0f0
    @test L1(0.01)(w) ≈ 0.01 * sum(abs.(Float64.(w))) rtol = 2e-5
    @test L2(0.01)(w) ≈ 0.01 * sum(Float64.(w) .^ 2) rtol = 2e-5
    @test ElasticNet(0.005, 0.02)(w) ≈ 0.005 * sum(abs.(Float64.(w))) + 0.02 * sum(Float64.(w) .^ 2) rtol = 2e-5
    @test all(p -> p(w) isa Float32, (NoPenalty(), L1(1), L2(1), ElasticNet(1, 1)))
end

# Both are one product and at most one sum a weight: two roundings.
@testset "the analytic gradient is Zygote's of the written-out loss, $p" for (p, written) in (
    L1(0.3) => w -> 0.3f0 * sum(abs, w),
    L2(0.3) => w -> 0.3f0 * sum(w .^ 2),
    ElasticNet(0.1, 0.2) => w -> 0.1f0 * sum(abs, w) + 0.2f0 * sum(w .^ 2),
)
    dw = ones(Float32, size(w))
    @test add_gradient!(dw, p, w) === dw
    @test dw ≈ 1 .+ only(Zygote.gradient(written, w)) rtol = 4 * eps(Float32)
end

@testset "no gradient where there is no penalty, or the weight is zero" begin
    @test iszero(add_gradient!(zeros(Float32, 2), NoPenalty(), Float32[1, 2]))
    @test add_gradient!(zeros(Float32, 3), L1(0.5), Float32[-2, 0, 3]) == [-0.5, 0, 0.5]
end

@testset "a proximal L1 has its value, no slope, and shrinks" begin
    for p in (L1(0.3), ElasticNet(0.3, 0.2))
        @test Proximal(p)(w) == p(w)
        smooth = p isa L1 ? NoPenalty() : L2(0.2)
        @test add_gradient!(zero(w), Proximal(p), w) == add_gradient!(zero(w), smooth, w)
        # α·λ₁/root = 0.1·0.3/0.06
        @test shrunk.(Ref(Proximal(p)), Float32[-2, -0.4, 0, 0.4, 0.5, 2], 0.1f0, 0.06f0) ≈ [-1.5, 0, 0, 0, 0, 1.5]
        @test iszero(shrunk(Proximal(p), 0.4f0, 0.1f0, 0.06f0)) && iszero(shrunk(Proximal(p), -0.4f0, 0.1f0, 0.06f0))
        @test shrunk(p, 0.4f0, 0.1f0, 0.06f0) === 0.4f0
    end
end

@testset "penalty" begin
    @test penalty() isa NoPenalty
    @test penalty(; l1=0.1) == L1(0.1)
    @test penalty(; l2=0.1) == L2(0.1)
    @test penalty(; l1=0.1, l2=0.2) == ElasticNet(0.1, 0.2)
    @test_throws "`l1` must be a finite number, 0 or more; received: -1" penalty(; l1=-1)
    @test_throws ArgumentError L2(Inf)
    @test_throws ArgumentError ElasticNet(0.1, NaN)
end

# Written out here from the table of the design, kernel by kernel.
const EXPECTED = Dict(
    "l1" => w -> 0.01 * sum(sum(abs, w[k]) for k in (:conv1, :conv2, :conv3, :dense1)),
    "l2" => w -> 0.01 * sum(sum(abs2, w[k]) for k in (:conv1, :conv2, :conv3, :dense1)),
    "elastic_net" => w -> 0.005 * sum(sum(abs, w[k]) + sum(abs2, w[k]) for k in (:conv1, :conv2, :conv3)) +
                          0.01 * sum(abs2, w[:dense1]),
    "mlp" => w -> 0.0001 * sum(sum(abs2, w[k]) for k in (:dense1, :dense2, :output)),
    "dense_l2" => w -> 0.001 * sum(abs2, w[:dense1]),
)

# The transfer variants' coefficients are measured, so they are the table's.
function expected_of(v)
    v.architecture == "transfer" || return get(EXPECTED, v.name, Returns(0.0))
    λ₁, λ₂ = coefficients(only(values(v.penalty)))
    return w -> (kernel = w[haskey(v.penalty, "output") ? :output : :dense1]; λ₁ * sum(abs, kernel) + λ₂ * sum(abs2, kernel))
end

# 125,000 terms in Julia's pairwise Float32 sum against Float64: log2(125,000) ≈ 17 roundings.
@testset "penalty of $(v.name)" for v in variants()
    model = small_model(v)
    foreach(array -> array .+= 0.1f0, Flux.trainables(model))  # biases too: they must not count
    value = penalty_value(kernel_penalties(layers_of(v)), model)
    weights = Dict(name => Float64.(model[name].weight) for name in PhotoFlux.kernels(layers_of(v)))
    @test value isa Float32
    @test value ≈ expected_of(v)(weights) rtol = 17 * eps(Float32)
end

# Of other numbers and other arrays the same definition, so that gradients can be checked in Float64.
@testset "in Float64, $p" for p in (NoPenalty(), L1(0.3), L2(0.3), ElasticNet(0.1, 0.2))
    wide, h = Float64.(w), 1e-6
    @test @inferred(p(wide)) isa Float64
    slopes = add_gradient!(zero(wide), p, wide)
    # The terms are at most quadratic, so the quotient is exact but for rounding of sums of some 100, over 2h.
    difference(i) = (e = zero(wide); e[i] = h; (p(wide + e) - p(wide - e)) / 2h)
    @test all(i -> isapprox(slopes[i], difference(i); atol=1e-6), (1, 50, 180))
end

# Where JLArrays is installed: arrays as on another device, which refuse to be read one element at a time.
if Base.find_package("JLArrays") !== nothing
    @eval using JLArrays: JLArray
    @testset "of arrays of another device, $p" for p in (NoPenalty(), L1(0.3), L2(0.3), ElasticNet(0.1, 0.2))
        there = JLArray(w)
        @test p(there) ≈ p(w) rtol = 2e-5
        @test Array(add_gradient!(zero(there), p, there)) == add_gradient!(zero(w), p, w)
    end
end
