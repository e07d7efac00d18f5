package Bench::Pairs;

# Interleaved pairs of measurements, and what they say.
#
#   pairs(one => sub, other => sub, key => 'rate', least => 8, most => 24,
#         within => 0.01, seconds => 90, each => sub)
#
# "one" and "other" make a measurement each and return a hash reference of
# numbers.  They take turns, one first and other first alternating, so that
# what changes slowly on the machine meets both alike.  It goes on until the
# median of one / other of the number "key" is known to "within", or until
# "most" pairs or "seconds" are over.  "each" is called before each pair.
#
# Returns a hash reference: name of a number -> summary() of its ratios, with
# the medians of both sides in one and other.
#
#   summary(@numbers)  { pairs, median, q1, q3, min, max, low, high }: quartiles,
#                      and low..high, which holds the true median with 95 %
#                      confidence, whatever the distribution (sign test);
#                      undef with fewer than six numbers, which cannot tell

use v5.36;

use Exporter qw/import/;
use Time::HiRes qw/clock_gettime CLOCK_MONOTONIC/;

our @EXPORT_OK = qw/pairs summary/;

sub pairs (%how) {
	my %got = (one => [], other => []);
	my $deadline = clock_gettime(CLOCK_MONOTONIC) + ($how{seconds} // 90);

	for my $n (0 .. ($how{most} // 24) - 1) {
		$how{each}->($n) if $how{each};

		for my $side ($n % 2 ? qw/other one/ : qw/one other/) {
			push @{ $got{$side} }, $how{$side}->();
		}

		last if clock_gettime(CLOCK_MONOTONIC) > $deadline;
		next if $n + 1 < ($how{least} // 8);

		my $so_far = summary(_ratios(\%got, $how{key}));
		next unless defined $so_far->{low};
		last if ($so_far->{high} - $so_far->{low}) / 2
			<= ($how{within} // 0.01) * $so_far->{median};
	}

	return {
		map {
			my $key = $_;
			$key => {
				summary(_ratios(\%got, $key))->%*,
				map {
					my $side = $_;
					$side => summary(map { $_->{$key} } $got{$side}->@*)
						->{median};
				} qw/one other/,
			};
		} keys $got{one}[0]->%*
	};
}

sub summary (@numbers) {
	my @sorted = sort { $a <=> $b } @numbers;
	my $rank = _rank(scalar @sorted);

	return {
		pairs => scalar @sorted,
		median => _quantile(0.5, @sorted),
		q1 => _quantile(0.25, @sorted), q3 => _quantile(0.75, @sorted),
		min => $sorted[0], max => $sorted[-1],
		low => $rank ? $sorted[$rank - 1] : undef,
		high => $rank ? $sorted[-$rank] : undef,
	};
}

sub _ratios ($got, $key) {
	return map { $got->{one}[$_]{$key} / $got->{other}[$_]{$key} }
		0 .. $got->{one}->$#*;
}

# Between the neighbours where the place is not whole.
sub _quantile ($part, @sorted) {
	my $place = $part * $#sorted;
	my $low = int $place;
	my $high = $low < $#sorted ? $low + 1 : $low;

	return $sorted[$low] + ($place - $low) * ($sorted[$high] - $sorted[$low]);
}

# The rank of the n sorted numbers, from either end, between which the median
# lies with 95 % confidence; 0 when there is none.  How many of them are below it
# is binomial.
sub _rank ($n) {
	my ($rank, $sum, $term) = (0, 0, 0.5 ** $n);

	while ($rank < $n / 2) {
		$sum += $term;
		last if 2 * $sum > 0.05;
		$term *= ($n - $rank) / ($rank + 1);
		$rank++;
	}

	return $rank;
}

1;
