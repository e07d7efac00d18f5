package Bench::Row::Instructions;

# Instructions that nginx runs for a proxied request, with the module and
# without.  They hardly depend on what else the machine does.

use v5.36;

use Bench::Callgrind;
use Bench::Pairs qw/pairs/;
use Bench::Proxied;

use constant PAIRS => 6;

sub run ($class, $session) {
	my %row = (
		name => 'instructions of a proxied request', goal => '<= 1.02',
		how => 'the same nginxes as for requests per second, but in one '
			. 'process (`master_process off`) under callgrind, one connection '
			. 'and one request at a time: the count of '
			. Bench::Callgrind::MANY . ' requests less that of '
			. Bench::Callgrind::FEW . ', by their difference, without what '
			. 'happens inside of malloc() and free(). The profiles are left '
			. 'in `build/bench`, for `callgrind_annotate`. '
			. '`bench/run.pl instructions`',
	);

	my $callgrind = Bench::Callgrind->new($session)
		or return { %row, missing => 'needs valgrind' };
	my $backend = Bench::Proxied::backend($session);
	my %front;

	my $measure = sub ($with) {
		return $callgrind->per_request(
			$front{$with}, port => Bench::Proxied::front_port($with),
			keep => $with ? 'proxied-with' : 'proxied-without',
			begin => sub {
				Bench::Proxied::check($session, $front{1}) if $with;
			},
		);
	};

	my $got = pairs(
		one => sub { $measure->(1) }, other => sub { $measure->(0) },
		key => 'plain', least => PAIRS, most => PAIRS,
		each => sub ($n) {
			%front = map { $_ => _front($session, $callgrind, $_, $n) } 0, 1;
		},
	);

	$session->stop($backend);

	return { %row, ratio => $got->{plain}, unit => '' }, {
		name => 'the same with malloc() and free()', unit => '',
		ratio => $got->{all}, how => 'the same runs. What malloc() and '
			. 'free() cost depends on the holes that the reading of the '
			. 'configuration left in the heap, for which each pair has '
			. 'another number of unused upstreams in it: the difference to '
			. 'the row above is chance, as long as the row below is 1',
	}, {
		name => 'calls of malloc() and free() for a request', unit => '',
		digits => 2, ratio => $got->{allocations}, how => 'the same runs',
	};
}

sub _front ($session, $callgrind, $with, $n) {
	return Bench::Proxied::front(
		$session, $with, binary => $callgrind->program(),
		main => 'master_process off;', unused => 3 * $n,
	);
}

1;
