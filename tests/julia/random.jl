using PhotoFlux: SplitMix, below!, build_model, coin!, derived_rng, draw_augmentation, epoch_items, next!, shuffled, uniform!
using Random: rand!

draw(args...) = next!(derived_rng(args...))

@test draw(1, "order", 2) == draw(1, "order", 2)
@test allunique([draw(1, "order", 2), draw(2, "order", 2), draw(1, "dropout", 2), draw(1, "order", 3), draw(1, "order", 2, 1)])
# Numbers that are written one after the other must not run together.
@test draw(1, "order", 1, 23) != draw(1, "order", 12, 3)
@test draw(-1, "order") != draw(1, "order")

# The first five are those that Rosetta Code lists of SplitMix64 with this seed; all other numbers in this file were made by
# a Python program with the same definitions. They are to be the same with every Julia.
@testset "the words are SplitMix64's" begin
    rng = SplitMix(1234567)
    @test [next!(rng) for _ in 1:5] == [0x599ed017fb08fc85, 0x2c73f08458540fa5, 0x883ebce5a3f27c77, 0x3fbef740e9177b3f,
        0xe3b8346708cb5ecd]
end

@testset "a seed of any size" begin
    seeds = (0, 42, big(2)^63, big(2)^64, big(2)^64 + 42, big(2)^100)
    @test [draw(seed, "weights") for seed in seeds] == UInt64[3472016363324964504, 6580188538123011149,
        12870936767281330856, 9952117035427610502, 3441178408936359210, 8424819930809832422]
    # However the integer is stored.
    @test draw(big(42), "weights") == draw(UInt8(42), "weights") == draw(42, "weights")
    @test draw(UInt64(2)^63, "weights") == draw(big(2)^63, "weights")
end

@testset "what is made of words" begin
    rng = derived_rng(42, "order", 1)
    @test [below!(rng, n) for n in (1, 2, 3, 10, 1000, 2^40, typemax(Int))] == [0, 0, 1, 2, 987, 197617926765, 5361665438298492743]
    @test next!(rng) == 11904192084287149177
    @test shuffled(derived_rng(42, "order", 1), 1:10) == [4, 8, 7, 9, 1, 6, 2, 5, 10, 3]
    @test shuffled(SplitMix(1), Int[]) == []
    rng = derived_rng(42, "augment", 1, 5, 1)
    @test (coin!(rng), coin!(rng), uniform!(rng), uniform!(rng)) == (false, true, 4169720 / 2^24, 10423666 / 2^24)
    a = draw_augmentation(derived_rng(42, "augment", 1, 5, 1))
    @test (a.flip_x, a.flip_y) == (false, true)
    @test a.angle ≈ 0.2π * (2 * 4169720 / 2^24 - 1) rtol = 4eps(Float32)
    @test a.zoom ≈ 1 + 0.1 * (2 * 10423666 / 2^24 - 1) rtol = 4eps(Float32)
    masks = derived_rng(42, "dropout", 1, 4)
    numbers = [458771, 14751322, 3509212, 3974510, 16293266, 5617542, 16674859] ./ 2^24
    @test rand!(masks, zeros(Float32, 2, 3)) == reshape(numbers[1:6], 2, 3)
    @test uniform!(masks) == 12094243 / 2^24
    @test rand!(copy!(SplitMix(0), derived_rng(42, "dropout", 1, 4)), zeros(Float32, 7)) == numbers
end

# A quarter of the words is thrown away at this bound: without that, some integers would come more often than others.
@testset "integers are not biased" begin
    rng = SplitMix(1234567)
    @test [below!(rng, 3 * 2^61) for _ in 1:12] == [2421685393916386993, 1201188079199552989, 3681559474574388908, 1722517698046905911, 6153346072296833932, 2926723098083949020,
        4085822113955644273, 1904309268122940066, 5663172741831833578, 2941427562886695130, 3061440765781726551, 1670068293651621114]
    @test next!(rng) == 6868010977894686036
    # 6000 dice: each face within five standard deviations of 1000.
    faces = [below!(rng, 6) for _ in 1:6000]
    @test all(face -> abs(count(==(face), faces) - 1000) < 5 * sqrt(6000 * 5 / 36), 0:5)
    @test extrema(faces) == (0, 5)
end

@testset "every order is as likely as another" begin
    orders = [shuffled(derived_rng(1, "order", n), 1:3) for n in 1:6000]
    @test all(order -> abs(count(==(order), orders) - 1000) < 5 * sqrt(6000 * 5 / 36), unique(orders))
    @test length(unique(orders)) == 6
end

# Made in vectors: the numbers and what is spent are those of one after the other, and no array is made.
@testset "a long draw, $n numbers" for n in (0, 1, 2, 31, 32, 33, 1000, 2^16 + 1)
    rng = derived_rng(7, "dropout", 1)
    long = rand!(rng, zeros(Float32, n))
    again = derived_rng(7, "dropout", 1)
    words = [next!(again) for _ in 1:cld(n, 2)]
    halves = vec(permutedims([words .% UInt32 words .>> 32]))
    @test long == (halves[1:n] .>> 8) ./ 2^24
    @test next!(rng) == next!(again)
    @test all(x -> 0 <= x < 1, long)
    fill_again() = @allocated rand!(rng, long)
    fill_again()
    @test fill_again() == 0
end

@testset "other arrays, the same numbers" begin
    expected = rand!(SplitMix(3), zeros(Float32, 5))
    @test rand!(SplitMix(3), zeros(5)) == expected
    @test rand!(SplitMix(3), view(zeros(Float32, 9), 2:6)) == expected
end

# A step is odd, and its neighbouring bits differ in 24 places or more.
@testset "steps" begin
    @test PhotoFlux.odd_step.([0, 1, typemax(UInt64), 0x5555555555555555]) ==
        [0xaaaaaaaaaaaaaaab, 0xaaaaaaaaaaaaaaab, 0x5555555555555555, 0x5555555555555555]
    steps = [derived_rng(seed, "weights").step for seed in 1:1000]
    @test all(step -> isodd(step) && count_ones(step ⊻ (step >> 1)) >= 24, steps)
end

# Random's own draws differ from Julia to Julia; nobody is to make them of this generator unawares.
@testset "no draws but ours" begin
    @test_throws MethodError rand(SplitMix(1), Float32)
    @test_throws MethodError rand(SplitMix(1), 1:3)
end

@testset "what a fit draws" begin
    data = tiny_data(; counts=[9, 9])
    @test [item.index for item in epoch_items(data, 42, 1, "none")] == [7, 13, 9, 1, 14, 4, 2, 10, 15, 8, 16, 3]
    weight = build_model("dense_l2", (7, 6, 1), 2; rng=derived_rng(42, "weights"))[:dense1].weight
    @test weight[1:3] ≈ [0.073266784, -0.053837993, -0.169460091] rtol = 4eps(Float32)
end
