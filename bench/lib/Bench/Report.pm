package Bench::Report;

# The table of a run, for the terminal and as bench/results.md.
#
#   new($session)
#   add(@rows)    each { name, goal => '<= 1.02' | undef, ratio => a summary
#                 of Bench::Pairs with one and other, unit, digits of these,
#                 how => what was compared, and to repeat it }
#                 or { name, goal, missing => why it was not measured, how }
#   table         text
#   machine       text
#   write($file)

use v5.36;

my @HEAD = ('row', 'goal', 'median', 'holds', '95 % of median', 'quartiles',
	'min-max', 'pairs', 'one / other');

sub new ($class, $session) {
	return bless { session => $session, rows => [] }, $class;
}

sub add ($self, @rows) { push @{ $self->{rows} }, @rows }

sub table ($self) {
	my @lines = map { _cells($_) } @{ $self->{rows} };
	my @width = map {
		my $at = $_;
		my ($most) = sort { $b <=> $a } map { length $_->[$at] } \@HEAD, @lines;
		$most;
	} 0 .. $#HEAD;

	return join '', map {
		my $line = $_;
		join('  ', map { sprintf '%-*s', $width[$_], $line->[$_] } 0 .. $#HEAD)
			=~ s/ +\z//r . "\n";
	} \@HEAD, @lines;
}

sub machine ($self) {
	return join '', map { "$_->[0]: $_->[1]\n" } $self->{session}->facts();
}

sub write ($self, $file) {
	my $text = <<'TEXT';
# What the module costs

Written by `make bench`. Each row is a ratio of two things that were measured in turns, in one session and on one
machine: `one / other`. The order within a pair alternates. The median of the ratios of the pairs is what a goal is
held against; "95 % of median" is where the true median lies with that confidence, the quartiles and min-max are the
spread of single pairs. "open" is a goal that lies inside that interval: the session was too noisy to tell. A row is
repeated until its median is known well enough, or its time is over.

TEXT

	$text .= join '', map { '| ' . join(' | ', @$_) . " |\n" }
		\@HEAD, [ ('---') x @HEAD ], map { _cells($_) } @{ $self->{rows} };

	$text .= "\n## Machine\n\n";
	$text .= join '', map { "- $_->[0]: $_->[1]\n" } $self->{session}->facts();

	$text .= "\n## How to repeat\n\n`make bench` repeats all rows; "
		. "`bench/run.pl ROW` one kind (see there). "
		. "`bench/run.pl --null` leaves the module out of both sides, "
		. "and shows what the machine's noise alone does.\n\n";
	my %seen;
	$text .= join '', map { "- $_->{name}: $_->{how}\n" } @{ $self->{rows} };

	open my $fh, '>', $file or die "cannot write \"$file\": $!\n";
	print {$fh} $text;
	close $fh or die "cannot write \"$file\": $!\n";
}

sub _cells ($row) {
	my $goal = $row->{goal} // 'reported';
	return [ $row->{name}, $goal, $row->{missing}, ('-') x 6 ]
		if $row->{missing};

	my $ratio = $row->{ratio};
	my $span = sub ($from, $to) {
		return '-' unless defined $ratio->{$from};
		return sprintf '%.4f-%.4f', @$ratio{$from, $to};
	};

	return [
		$row->{name}, $goal, sprintf('%.4f', $ratio->{median}),
		_verdict($row), $span->(qw/low high/), $span->(qw/q1 q3/),
		$span->(qw/min max/), $ratio->{pairs},
		sprintf('%.*f / %.*f %s',
			map({ $row->{digits} // 0, $_ } @$ratio{qw/one other/}),
			$row->{unit}) =~ s/ \z//r,
	];
}

sub _verdict ($row) {
	my ($sign, $limit) = ($row->{goal} // '') =~ /\A([<>])= ([\d.]+)\z/
		or return '-';
	my ($low, $high) = @{ $row->{ratio} }{qw/low high/};
	return 'open' unless defined $low;

	my ($good, $bad) = $sign eq '<' ? ($high <= $limit, $low > $limit)
		: ($low >= $limit, $high < $limit);

	return $good ? 'yes' : $bad ? 'NO' : 'open';
}

1;
